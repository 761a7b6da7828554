//! The one place that loads scripts.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation, ToRedisArgs};

/// A script of `lua/`, with what its header says of its call.
#[derive(Debug)]
pub(super) struct Declared {
    file: &'static str,
    text: &'static str,
    /// What the text stands on: shared functions, before it.
    library: &'static str,
    keys: usize,
    args: usize,
    /// How many arguments each item of a list has, which follows the others; 0 for no list.
    item: usize,
}

/// A call being put together.
pub(super) struct Call {
    declared: &'static Declared,
    invocation: ScriptInvocation<'static>,
    keys: usize,
    args: usize,
}

impl Call {
    pub(super) fn key(mut self, key: impl ToRedisArgs) -> Self {
        self.invocation.key(key);
        self.keys += 1;
        self
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.push(arg);
        self
    }

    pub(super) fn push(&mut self, arg: impl ToRedisArgs) {
        self.invocation.arg(arg);
        self.args += 1;
    }

    /// Calls the script by its hash; loads it and repeats where the server does not know it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        let Declared {
            file,
            keys,
            args,
            item,
            ..
        } = self.declared;
        debug_assert_eq!(self.keys, *keys, "{file}: keys");
        let rest = self.args.wrapping_sub(*args);
        debug_assert_eq!(rest.checked_rem(*item).unwrap_or(rest), 0, "{file}: args");
        self.invocation.invoke_async(connection).await
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal $(on $library:literal)?, keys $keys:literal, args $args:literal, item $item:literal;)*) => {
        $(pub(super) fn $name() -> Call {
            static DECLARED: Declared = Declared {
                file: $file,
                text: include_str!(concat!("../../lua/", $file)),
                library: concat!($(include_str!(concat!("../../lua/", $library)))?),
                keys: $keys,
                args: $args,
                item: $item,
            };
            // The hash is computed once.
            static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                Script::new(&[DECLARED.library, DECLARED.text].concat())
            });
            Call {
                declared: &DECLARED,
                invocation: SCRIPT.prepare_invoke(),
                keys: 0,
                args: 0,
            }
        })*

        fn all() -> Vec<Call> {
            vec![$($name()),*]
        }
    };
}

scripts! {
    dead_put = "dead_put.lua" on "lib/dead_counts.lua", keys 5, args 1, item 4;
    dead_take = "dead_take.lua" on "lib/dead_counts.lua", keys 6, args 1, item 3;
    forget = "forget.lua", keys 2, args 3, item 0;
    group_create = "group_create.lua", keys 2, args 2, item 0;
    group_remove = "group_remove.lua", keys 10, args 3, item 0;
    group_status = "group_status.lua", keys 4, args 1, item 0;
    kv_cas = "kv_cas.lua", keys 1, args 4, item 0;
    lease = "lease.lua", keys 2, args 3, item 2;
    once_claim = "once_claim.lua", keys 1, args 2, item 0;
    once_settle = "once_settle.lua", keys 1, args 4, item 0;
    promote = "promote.lua", keys 3, args 1, item 0;
    reclaim = "reclaim.lua", keys 2, args 6, item 0;
    retain = "retain.lua", keys 2, args 1, item 0;
    retry_list = "retry_list.lua", keys 2, args 4, item 0;
    retry_take = "retry_take.lua", keys 3, args 1, item 1;
    schema = "schema.lua", keys 1, args 5, item 0;
    settle = "settle.lua" on "lib/dead_counts.lua", keys 8, args 2, item 5;
    topic_create = "topic_create.lua", keys 1, args 4, item 0;
}

/// Loads every script, and says how many there are.
pub(super) async fn load_all(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let mut pipeline = redis::pipe();
    let all = all();
    for call in &all {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(call.declared.text);
    }
    let loaded: Vec<String> = pipeline.query_async(connection).await?;
    Ok(loaded.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `KEYS[n]` and the like a header documents, each on a line of its own.
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
    fn every_header_says_what_its_call_passes() {
        for call in all() {
            let Declared {
                file,
                text,
                keys,
                args,
                item,
                ..
            } = *call.declared;
            assert_eq!(documented(text, "KEYS"), keys, "{file}: KEYS");
            assert_eq!(documented(text, "ARGV"), args, "{file}: ARGV");
            assert_eq!(documented(text, "ITEM"), item, "{file}: ITEM");
            assert!(text.contains("\n-- Returns "), "{file}: what it returns");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_loaded_here() {
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
