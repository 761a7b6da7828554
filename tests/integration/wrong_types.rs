//! A key of another type where a script expects its own: a clear error, and nothing written.

use std::collections::BTreeMap;

use redis::{Connection, Script, Value};

use crate::support::Server;

struct Case {
    file: &'static str,
    text: &'static str,
    /// One in brackets is not needed by this call, and may be anything.
    keys: &'static [&'static str],
    args: &'static [&'static str],
}

macro_rules! cases {
    ($($file:literal $(on $($library:literal)and+)?: $keys:expr, $args:expr;)*) => {
        [$(Case {
            file: $file,
            text: concat!(
                $($(include_str!(concat!("../../lua/", $library)),)+)?
                include_str!(concat!("../../lua/", $file))
            ),
            keys: $keys,
            args: $args,
        }),*]
    };
}

const LOG: &str = "{t}:log";
const META: &str = "{t}:meta";
const REDO: &str = "{t}:redo";
const RETRY: &str = "{t}:retry";
const BODY: &str = "{t}:body";
const DEAD: &str = "{t}:dead";
const BODIES: &str = "{t}:dead:body";
const CAUSES: &str = "{t}:causes";
const JOURNAL: &str = "{t}:journal";
const COUNTS: &str = "{t}:counts";
const CURSOR: &str = "{t}:cursor";
const MEMBERS: &str = "{t}:members";
const OWNERS: &str = "{t}:owners";
const OWNED: &str = "{t}:owned";

/// Every script, in calls that would write if they could.
fn cases() -> Vec<Case> {
    let eight: &[&str] = &[LOG, REDO, RETRY, BODY, DEAD, BODIES, COUNTS, CAUSES];
    let dead_letters: &[&str] = &[DEAD, BODIES, "{t}:uncounted", REDO, JOURNAL];
    let put: &[&str] = &[DEAD, BODIES, COUNTS, CAUSES, "{t}:restored"];
    cases! {
        "append_once.lua" on "lib/ids.lua": &[LOG, "{t}:ids", "{t}:ids:before"], &["9", "0123456789abcdef", "json", "{}"];
        "apply.lua" on "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua": &["k"], &["1", "1000", "0"];
        "commit.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua": &[LOG, REDO, "k"], &["1", "1000", "g", "me", "1-1", "1-1", "", "", "1-1", "log ack held 0"];
        "dead_subtract.lua" on "lib/types.lua" and "lib/dead_counts.lua": &["{t}:uncounted", COUNTS, CAUSES], &["0", "1", "type:k", "1"];
        "dead_restore.lua" on "lib/types.lua" and "lib/dead_counts.lua": put, &["1", "identity", "", "head", "body"];
        "dead_move_out.lua" on "lib/types.lua": dead_letters, &["op", "requeue", "me", "0", "sums", "1-1", ""];
        "dead_move_out.lua" on "lib/types.lua": dead_letters, &["", "discard", "me", "0", "sums", "1-1", ""];
        "cursor_step.lua" on "lib/types.lua" and "lib/groups.lua" and "lib/dead_counts.lua": &[LOG, REDO, CURSOR, "{t}:held", RETRY, BODY, DEAD, BODIES, COUNTS, CAUSES], &["g", "me", "1", "2", "1-1", "1-1", "", "1", "", "", "", "", "reschedule", "log:1-1", "1000", "parcel", ""];
        "cursor_read.lua": &[CURSOR, "{t}:held"], &["1", "1000"];
        "cursor_take.lua" on "lib/types.lua" and "lib/groups.lua": &[LOG, REDO, CURSOR, "{t}:held"], &["g", "me", "2"];
        "own.lua" on "lib/types.lua" and "lib/members.lua": &[MEMBERS, OWNERS, "{t}:tokens", OWNED], &["g", "heir", "attend", "1000", "claim", "1", "0"];
        "prune_consumers.lua" on "lib/rights.lua": &[LOG, REDO, META], &["g", "0", "", "{t}:session:"];
        "group_create.lua" on "lib/types.lua" and "lib/groups.lua": &[LOG, REDO, META], &["other", "beginning", "shared"];
        "group_create.lua" on "lib/types.lua" and "lib/groups.lua": &[LOG, REDO, META], &["other", "next", "owned"];
        "group_lease.lua" on "lib/types.lua" and "lib/groups.lua": &[LOG, REDO, META], &["g", "me", "1"];
        "group_remove.lua" on "lib/groups.lua": &[LOG, REDO, RETRY, "({t}:body)", DEAD], &["g", "0", "force"];
        "group_reset.lua" on "lib/groups.lua": &[LOG, REDO, CURSOR, "{t}:nobody"], &["g", "beginning", "", "0"];
        "group_status.lua" on "lib/groups.lua": &[LOG, REDO, RETRY, DEAD, META], &["g", "0-0", ""];
        "kv_cas.lua": &["k"], &["0", "", "a", "0"];
        "lease.lua" on "lib/types.lua" and "lib/holders.lua": &[LOG, REDO], &["g", "me", "extend", "1-1", "1-1", "1-1", "1-1", "log", "1-1", "", "redo", "1-1", ""];
        "lease.lua" on "lib/types.lua" and "lib/holders.lua": &[LOG, REDO], &["g", "me", "release", "1-1", "1-1", "1-1", "1-1", "log", "1-1", "", "redo", "1-1", "0"];
        "lease.lua" on "lib/types.lua" and "lib/holders.lua": &[LOG, REDO], &["g", "me", "begin", "1-1", "1-1", "1-1", "1-1", "log", "1-1", "2", "redo", "1-1", "2"];
        "once_claim.lua": &["k"], &["token", "1000"];
        "once_settle.lua": &["k"], &["token", "complete", "1000", "result"];
        "promote.lua": &[RETRY, BODY, REDO], &["10"];
        "claim_expired.lua": &[LOG, REDO, META], &["g", "heir", "0", "10", "0-0", "0-0", "2"];
        "trim.lua" on "lib/groups.lua": &[LOG, META], &["", "{t}:group:", "0"];
        "schema.lua": &["{s}:schema", "({s}:topics)"], &["begin", "token", "0001", "sum", "1000", "spread"];
        "roster.lua" on "lib/members.lua": &[MEMBERS, OWNERS, "{t}:tokens", OWNED], &["g"];
        "retry_list.lua": &[RETRY, BODY], &["", "", "10", "1000"];
        "retry_move_out.lua": &[RETRY, BODY, REDO], &["run", "log:9-1"];
        "retry_move_out.lua": &[RETRY, BODY, "({t}:redo)"], &["cancel", "log:9-1"];
        "settle.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/dead_counts.lua": eight, &["g", "me", "held", "1-1", "1-1", "", "", "log", "1-1", "reschedule", "1000", "parcel"];
        "settle.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/dead_counts.lua": eight, &["g", "me", "held", "1-1", "1-1", "", "", "log", "1-1", "reschedule", "0", "parcel"];
        "settle.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/dead_counts.lua": eight, &["g", "me", "held", "1-1", "1-1", "", "", "log", "1-1", "dead-letter", "head", "body"];
        "topic_create.lua": &[META], &["shop", "t", "settled", "9", "1", "0"];
        "topic_remove.lua": &[LOG, META, "({t}:ids)", "({t}:ids:before)", "({t}:later)", "({t}:later:body)", "({t}:later:bell)"], &["", "t"];
        "topic_settings.lua": &[META], &["", "t", "settled", "9"];
    }
    .into()
}

fn run<T: redis::FromRedisValue>(raw: &mut Connection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(raw).unwrap()
}

/// Something of everything: pending entries in both lanes, a due retry, a dead letter.
fn furnish(raw: &mut Connection) {
    for key in [LOG, REDO] {
        let _: Value = run(raw, &format!("XGROUP CREATE {key} g 0 MKSTREAM"));
        let _: String = run(raw, &format!("XADD {key} 1-1 json 1"));
        let _: Value = run(raw, &format!("XREADGROUP GROUP g me STREAMS {key} >"));
        let _: Value = run(raw, &format!("XGROUP CREATECONSUMER {key} g idle"));
    }
    let _: u64 = run(raw, &format!("ZADD {RETRY} 1 log:9-1"));
    let _: u64 = run(raw, &format!("HSET {BODY} log:9-1 parcel"));
    let _: String = run(raw, &format!("XADD {DEAD} 1-1 reason rejected record body"));
    let _: u64 = run(raw, &format!("HSET {COUNTS} reason:rejected 1"));
    let _: u64 = run(raw, &format!("HSET {CURSOR} token 1 owner me number 1"));
    let _: u64 = run(raw, &format!("ZADD {MEMBERS} 99999999999999 me"));
    let _: u64 = run(raw, &format!("HSET {OWNERS} 0 me"));
    let _: u64 = run(raw, &format!("HSET {OWNED} owned:g 1"));
}

fn everything(raw: &mut Connection) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = run(raw, "KEYS *");
    keys.into_iter()
        .map(|key| {
            let held = run(raw, &format!("DUMP {key}"));
            (key, held)
        })
        .collect()
}

#[test]
fn every_script_rejects_a_wrong_type_and_writes_nothing() {
    let server = Server::start();
    let raw = &mut server.raw();
    for case in cases() {
        for key in case.keys {
            let wrong = key.trim_matches(['(', ')']);
            let _: Value = run(raw, "FLUSHALL");
            furnish(raw);
            let _: u64 = run(raw, &format!("DEL {wrong}"));
            // Of no type that any script takes.
            let _: u64 = run(raw, &format!("PFADD {wrong} x"));
            if wrong == "k" {
                let _: u64 = run(raw, "DEL k");
                let _: u64 = run(raw, "LPUSH k x");
            }
            let before = everything(raw);
            let script = Script::new(case.text);
            let mut call = script.prepare_invoke();
            for key in case.keys {
                call.key(key.trim_matches(['(', ')']));
            }
            for arg in case.args {
                call.arg(*arg);
            }
            let what = format!("{} {:?} with a wrong {wrong}", case.file, case.args);
            let told = match call.invoke::<Vec<Value>>(raw) {
                Err(error) => error.to_string(),
                Ok(replies) => format!("{replies:?}"),
            };
            let after = everything(raw);
            if wrong == *key {
                assert!(told.contains("WRONGTYPE"), "{what}: {told}");
                assert_eq!(after, before, "{what} has written");
            } else {
                assert!(!told.contains("WRONGTYPE"), "{what}: {told}");
                // Only removing a whole group may take it along.
                let held = after.get(wrong);
                assert!(
                    held.is_none_or(|held| *held == before[wrong]),
                    "{what} has written"
                );
            }
        }
    }
}
