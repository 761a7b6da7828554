//! The scripts of `lua/`: their declarations, calls and loading. Nothing else loads scripts.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};
use redis::{ToRedisArgs, cmd};

/// A script of `lua/`, and the arguments that its header documents.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Declared {
    file: &'static str,
    text: &'static str,
    /// Shared functions that stand in front of the text.
    library: &'static str,
    keys: usize,
    args: usize,
    /// The number of arguments of each item in the list at the end; 0 without a list.
    item: usize,
    /// `EVALSHA`, or `EVALSHA_RO` for a script that only reads, so that read-only users can call it.
    by: &'static str,
}

/// A call under construction: first its keys, then its arguments.
pub(in crate::adapters::redis) struct Call {
    declared: &'static Declared,
    script: &'static Script,
    command: Cmd,
    first_key: String,
    /// How many keys the call has beyond those of its script's header.
    more_keys: usize,
    keys: usize,
    args: usize,
}

/// Whether the server does not know the script, as after a restart, a failover or SCRIPT FLUSH.
pub(in crate::adapters::redis) fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The file, line number and source line that a script's error names, as in
/// `… script: <hash>, on @user_script:12.`
pub(in crate::adapters::redis) fn place(
    error: &str,
) -> Option<(&'static str, usize, &'static str)> {
    let (hash, rest) = error
        .rsplit_once("script: ")?
        .1
        .split_once(", on @user_script:")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let number: usize = digits.parse().ok()?;
    let call = all()
        .into_iter()
        .find(|call| call.script.get_hash() == hash)?;
    let Declared {
        file,
        library,
        text,
        ..
    } = *call.declared;
    let line = library
        .lines()
        .chain(text.lines())
        .nth(number.checked_sub(1)?)?;
    // Number the line as in its own file, not as in the joined text.
    let shared = library.lines().count();
    Some(match number.checked_sub(shared) {
        Some(own) if own > 0 => (file, own, line.trim()),
        _ => ("a shared function", number, line.trim()),
    })
}

impl Call {
    fn new(declared: &'static Declared, script: &'static Script) -> Self {
        let mut command = cmd(declared.by);
        command.arg(script.get_hash()).arg(declared.keys);
        Self {
            declared,
            script,
            command,
            first_key: String::new(),
            more_keys: 0,
            keys: 0,
            args: 0,
        }
    }

    /// The same call with a number of keys beyond those that the script's header names.
    pub(in crate::adapters::redis) fn with_more_keys(self, more_keys: usize) -> Self {
        debug_assert_eq!(self.keys, 0, "{}: keys come later", self.declared.file);
        let mut command = cmd(self.declared.by);
        let keys = self.declared.keys + more_keys;
        command.arg(self.script.get_hash()).arg(keys);
        Self {
            command,
            more_keys,
            ..self
        }
    }

    pub(in crate::adapters::redis) fn key(mut self, key: impl Into<String>) -> Self {
        debug_assert_eq!(self.args, 0, "{}: keys come first", self.declared.file);
        let key = key.into();
        self.command.arg(&key);
        if self.keys == 0 {
            self.first_key = key;
        }
        self.keys += 1;
        self
    }

    pub(in crate::adapters::redis) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.push(arg);
        self
    }

    pub(in crate::adapters::redis) fn push(&mut self, arg: impl ToRedisArgs) {
        self.command.arg(arg);
        self.args += 1;
    }

    /// The key that routes the call: all keys of a script lie in one slot.
    pub(in crate::adapters::redis) fn first_key(&self) -> &str {
        &self.first_key
    }

    /// Calls the script by its hash. If the server does not know it, loads it and calls it again.
    pub(in crate::adapters::redis) async fn run(
        &self,
        connection: &mut impl ConnectionLike,
    ) -> RedisResult<Value> {
        self.check();
        match self.command.query_async(connection).await {
            Err(error) if is_unknown(&error) => {
                self.script.load_async(connection).await?;
                self.command.query_async(connection).await
            }
            result => result,
        }
    }

    /// The packed call, for a connection whose replies are read in place. The caller
    /// [loads](Self::packed_load) the script if the server does not know it.
    pub(in crate::adapters::redis) fn packed(&self) -> Vec<u8> {
        self.check();
        self.command.get_packed_command()
    }

    /// The packed command that loads the script.
    pub(in crate::adapters::redis) fn packed_load(&self) -> Vec<u8> {
        cmd("SCRIPT")
            .arg("LOAD")
            .arg(self.source())
            .get_packed_command()
    }

    /// The text that the server runs.
    fn source(&self) -> String {
        [self.declared.library, self.declared.text].concat()
    }

    /// Checks that the call passes the keys and arguments that the script's header documents.
    fn check(&self) {
        let Declared {
            file,
            keys,
            args,
            item,
            ..
        } = self.declared;
        debug_assert_eq!(self.keys, *keys + self.more_keys, "{file}: keys");
        let rest = self.args.wrapping_sub(*args);
        debug_assert_eq!(rest.checked_rem(*item).unwrap_or(rest), 0, "{file}: args");
    }
}

macro_rules! by {
    () => {
        "EVALSHA"
    };
    (reads) => {
        "EVALSHA_RO"
    };
}

macro_rules! scripts {
    ($($name:ident = $file:literal $(on $($library:literal)and+)?, keys $keys:literal,
        args $args:literal, item $item:literal $(, $by:ident)?;)*) => {
        $(pub(in crate::adapters::redis) fn $name() -> Call {
            static DECLARED: Declared = Declared {
                file: $file,
                text: include_str!(concat!("../../../../lua/", $file)),
                library: concat!($($(include_str!(concat!("../../../../lua/", $library))),+)?),
                keys: $keys,
                args: $args,
                item: $item,
                by: by!($($by)?),
            };
            // The hash is computed once.
            static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                Script::new(&[DECLARED.library, DECLARED.text].concat())
            });
            Call::new(&DECLARED, &SCRIPT)
        })*

        fn all() -> Vec<Call> {
            vec![$($name()),*]
        }
    };
}

scripts! {
    append_once = "append_once.lua" on "lib/ids.lua", keys 3, args 1, item 3;
    apply = "apply.lua" on "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua", keys 1, args 2, item 1;
    claim_expired = "claim_expired.lua", keys 3, args 7, item 0;
    commit = "commit.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua" and "lib/commits.lua", keys 3, args 8, item 1;
    cursor_commit = "cursor_commit.lua" on "lib/types.lua" and "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua" and "lib/commits.lua", keys 3, args 4, item 1;
    cursor_read = "cursor_read.lua", keys 2, args 2, item 0, reads;
    cursor_step = "cursor_step.lua" on "lib/types.lua" and "lib/groups.lua" and "lib/dead_counts.lua", keys 10, args 12, item 5;
    cursor_take = "cursor_take.lua" on "lib/types.lua" and "lib/groups.lua", keys 4, args 3, item 0;
    dead_move_out = "dead_move_out.lua" on "lib/types.lua", keys 5, args 5, item 2;
    dead_restore = "dead_restore.lua" on "lib/types.lua" and "lib/dead_counts.lua", keys 5, args 1, item 4;
    dead_subtract = "dead_subtract.lua" on "lib/types.lua" and "lib/dead_counts.lua", keys 3, args 2, item 2;
    group_create = "group_create.lua" on "lib/types.lua" and "lib/groups.lua", keys 3, args 3, item 0;
    group_lease = "group_lease.lua" on "lib/types.lua" and "lib/groups.lua", keys 3, args 3, item 0;
    group_remove = "group_remove.lua" on "lib/groups.lua", keys 18, args 3, item 0;
    group_reset = "group_reset.lua" on "lib/groups.lua", keys 4, args 4, item 0;
    group_status = "group_status.lua" on "lib/groups.lua", keys 5, args 3, item 0, reads;
    invalidate = "invalidate.lua", keys 1, args 0, item 0;
    kv_cas = "kv_cas.lua", keys 1, args 4, item 0;
    later_cancel = "later_cancel.lua" on "lib/types.lua", keys 2, args 0, item 1;
    later_promote = "later_promote.lua" on "lib/later.lua", keys 3, args 1, item 0;
    later_put = "later_put.lua" on "lib/types.lua" and "lib/later.lua" and "lib/bell.lua", keys 4, args 0, item 6;
    later_reschedule = "later_reschedule.lua" on "lib/bell.lua", keys 2, args 3, item 0;
    lease = "lease.lua" on "lib/types.lua" and "lib/holders.lua", keys 2, args 7, item 3;
    once_claim = "once_claim.lua", keys 1, args 2, item 0;
    once_settle = "once_settle.lua", keys 1, args 4, item 0;
    own = "own.lua" on "lib/types.lua" and "lib/members.lua", keys 4, args 4, item 3;
    promote = "promote.lua" on "lib/later.lua", keys 6, args 1, item 0;
    prune_consumers = "prune_consumers.lua" on "lib/rights.lua", keys 3, args 4, item 0;
    refresh_ids = "refresh_ids.lua", keys 2, args 0, item 0;
    retry_list = "retry_list.lua", keys 2, args 4, item 0, reads;
    retry_move_out = "retry_move_out.lua", keys 3, args 1, item 1;
    roster = "roster.lua" on "lib/members.lua", keys 4, args 1, item 0, reads;
    schema = "schema.lua", keys 2, args 6, item 0;
    settle = "settle.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/dead_counts.lua", keys 8, args 7, item 5;
    topic_create = "topic_create.lua", keys 1, args 6, item 0;
    topic_remove = "topic_remove.lua", keys 7, args 2, item 0;
    topic_settings = "topic_settings.lua", keys 1, args 4, item 0;
    trim = "trim.lua" on "lib/groups.lua", keys 2, args 3, item 0;
}

/// Loads every script, and returns their number.
pub(in crate::adapters::redis) async fn load_all(
    connection: &mut impl ConnectionLike,
) -> RedisResult<u64> {
    let mut pipeline = redis::pipe();
    let all = all();
    for call in &all {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(call.source());
    }
    let loaded: Vec<String> = pipeline.query_async(connection).await?;
    Ok(loaded.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the `KEYS[n]` (or `ARGV[n]`, `ITEM[n]`) that a header documents, one per line.
    fn documented(text: &str, what: &str) -> usize {
        let lines = text.lines().take_while(|line| line.starts_with("--"));
        let named: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("-- ")?.strip_prefix(what))
            .collect();
        for (at, rest) in named.iter().enumerate() {
            assert!(rest.starts_with(&format!("[{}]  ", at + 1)), "{what}{rest}");
        }
        named.len()
    }

    #[test]
    fn every_header_documents_the_arguments_of_its_call() {
        for call in all() {
            let Declared {
                file,
                text,
                keys,
                args,
                item,
                by,
                ..
            } = *call.declared;
            assert_eq!(documented(text, "KEYS"), keys, "{file}: KEYS");
            assert_eq!(documented(text, "ARGV"), args, "{file}: ARGV");
            assert_eq!(documented(text, "ITEM"), item, "{file}: ITEM");
            assert!(text.contains("\n-- Returns "), "{file}: the return values");
            let source = call.source();
            let commands = source.split("call('").skip(1);
            let mut commands = commands.filter_map(|rest| rest.split('\'').next());
            let reads = [
                "EXISTS",
                "GET",
                "HGET",
                "HGETALL",
                "HMGET",
                "HSCAN",
                "TIME",
                "TYPE",
                "XINFO",
                "XLEN",
                "XPENDING",
                "XRANGE",
                "ZCARD",
                "ZCOUNT",
                "ZRANGE",
                "ZRANGEBYSCORE",
            ];
            let only_reads = !source.contains("'XGROUP'")
                && !source.contains("write('")
                && commands.all(|command| reads.contains(&command));
            assert_eq!(only_reads, by == "EVALSHA_RO", "{file}: {by}");
        }
    }

    #[test]
    fn a_call_starts_with_its_hash_and_keys_and_knows_its_first_key() {
        let call = kv_cas().key("shop:a").arg(1).arg("x").arg("y").arg(0);
        assert_eq!(call.first_key(), "shop:a");
        let packed = String::from_utf8(call.packed()).unwrap();
        let words: Vec<&str> = packed.lines().skip(2).step_by(2).collect();
        let hash = call.script.get_hash();
        assert_eq!(words, ["EVALSHA", hash, "1", "shop:a", "1", "x", "y", "0"]);
        let loading = String::from_utf8(call.packed_load()).unwrap();
        assert!(loading.contains(call.declared.text), "{loading}");
    }

    #[test]
    fn an_error_of_a_script_is_located_in_its_file() {
        let at = |hash: &str, line: usize| {
            place(&format!("ERR no script: {hash}, on @user_script:{line}."))
        };
        let hash = kv_cas().script.get_hash();
        let (file, line, source) = at(hash, 1).unwrap();
        assert_eq!((file, line), ("kv_cas.lua", 1));
        assert!(source.starts_with("-- Compare and set"), "{source}");
        // Redis 8 and Valkey 8 put a text in front that holds the same word.
        let refused =
            "ERR ACL failure in script: User ann has no permissions to run the 'get' command";
        let text = format!("{refused} script: {hash}, on @user_script:1.");
        assert_eq!(place(&text).map(|(file, ..)| file), Some("kv_cas.lua"));
        assert_eq!(at(hash, 10_000), None);
        assert_eq!(at("00ff", 1), None);

        let call = trim();
        let (hash, library) = (
            call.script.get_hash(),
            call.declared.library.lines().count(),
        );
        assert_eq!(at(hash, 1).unwrap().0, "a shared function");
        let (file, line, source) = at(hash, library + 1).unwrap();
        assert_eq!((file, line), ("trim.lua", 1));
        assert!(source.starts_with("-- Removes settled entries"), "{source}");
    }

    #[test]
    fn every_file_of_the_folder_is_declared() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        files.sort();
        let declared: Vec<&str> = all().iter().map(|call| call.declared.file).collect();
        assert_eq!(files, declared);
    }
}
