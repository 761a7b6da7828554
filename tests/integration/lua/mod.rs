//! Every script, called directly, on each of its return values.

use redis::{Connection, FromRedisValue, Script, ToRedisArgs, Value};

use crate::support::Server;

macro_rules! script {
    ($file:literal) => {
        Script::new(include_str!(concat!("../../../lua/", $file)))
    };
    ($file:literal on $($library:literal)and+) => {
        Script::new(concat!(
            $(include_str!(concat!("../../../lua/", $library)),)+
            include_str!(concat!("../../../lua/", $file))
        ))
    };
}

mod append_once;
mod dead;
mod groups;
mod later;
mod members;
mod store;
mod topics;
mod trim;

const LOG: &str = "{t}:log";
const REDO: &str = "{t}:redo";
const RETRY: &str = "{t}:retry";
const BODY: &str = "{t}:body";
const DEAD: &str = "{t}:dead";
const COUNTS: &str = "{t}:counts";
const META: &str = "{t}:meta";
const SESSION: &str = "{t}:session:";
const LATER: &str = "{t}:later";
const LATER_BODY: &str = "{t}:later:body";
const LATER_BELL: &str = "{t}:later:bell";

fn call<T: FromRedisValue>(
    raw: &mut Connection,
    script: &Script,
    keys: &[&str],
    args: &[impl ToRedisArgs],
) -> T {
    attempt(raw, script, keys, args).unwrap()
}

fn attempt<T: FromRedisValue>(
    raw: &mut Connection,
    script: &Script,
    keys: &[&str],
    args: &[impl ToRedisArgs],
) -> redis::RedisResult<T> {
    let mut call = script.prepare_invoke();
    for key in keys {
        call.key(*key);
    }
    for arg in args {
        call.arg(arg);
    }
    call.invoke(raw)
}

fn run<T: FromRedisValue>(raw: &mut Connection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(raw).unwrap()
}

fn fails(
    raw: &mut Connection,
    script: &Script,
    keys: &[&str],
    args: &[impl ToRedisArgs],
) -> String {
    let error = attempt::<Value>(raw, script, keys, args).unwrap_err();
    error.to_string()
}

/// A log of four entries, 1-1 to 4-1; `me` has the first three, the redelivery stream is empty.
fn lanes(raw: &mut Connection) {
    for key in [LOG, REDO] {
        let _: Value = run(raw, &format!("XGROUP CREATE {key} g 0 MKSTREAM"));
    }
    for n in 1..=4 {
        let _: String = run(raw, &format!("XADD {LOG} {n}-1 json {n}"));
    }
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP g me COUNT 3 STREAMS {LOG} >"),
    );
}

type Pending = Vec<(String, String, u64, u64)>;

fn pending(raw: &mut Connection, key: &str) -> Pending {
    run(raw, &format!("XPENDING {key} g - + 100"))
}

fn ids(pending: &Pending) -> Vec<&str> {
    pending.iter().map(|(id, ..)| id.as_str()).collect()
}

#[test]
fn lease() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("lease.lua" on "lib/types.lua" and "lib/holders.lua"),
    );
    lanes(raw);
    let keys = [LOG, REDO];
    let _: Value = run(raw, &format!("XCLAIM {LOG} g me 0 1-1 IDLE 5000000 JUSTID"));
    let _: Value = run(raw, &format!("XCLAIM {LOG} g you 0 2-1 JUSTID"));
    let three = ["log", "1-1", "", "log", "2-1", "", "log", "4-1", ""];
    let extend: Vec<&str> = ["g", "me", "extend", "1-1", "4-1", "", ""]
        .into_iter()
        .chain(three)
        .collect();
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &extend), [1, 0, -1]);
    let held = pending(raw, LOG);
    assert!(held[0].2 < 5_000_000, "the lease starts anew");
    assert_eq!(held[0].3, 1, "and no delivery is counted");
    assert_eq!(held[1].1, "you");

    let release: Vec<&str> = ["g", "me", "release", "1-1", "4-1", "", ""]
        .into_iter()
        .chain(three)
        .collect();
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &release), [1, 0, -1]);
    let held = pending(raw, LOG);
    assert!(held[0].2 > 86_400_000, "no lease is as long");
    assert_eq!(held[0].3, 0, "the delivery is not counted");
    for (action, mark, stored) in [
        ("begin", "3", 3),
        ("release", "", 3),
        ("release", "2", 2),
        ("release", "2", 2),
        ("release", "0", 0),
    ] {
        let change = ["g", "me", action, "", "", "", "", "log", "1-1", mark];
        assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &change), [1]);
        assert_eq!(pending(raw, LOG)[0].3, stored, "{action} {mark}");
    }
    let stranger = ["g", "you", "begin", "", "", "", "", "log", "1-1", "9"];
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &stranger), [0]);
    assert_eq!(pending(raw, LOG)[0].3, 0);

    let unknown = ["g", "me", "hold", "", "", "", "", "log", "1-1", ""];
    assert!(fails(raw, &script, &keys, &unknown).contains("unknown"));
    let gone = ["none", "me", "extend", "", "", "", "", "log", "1-1", ""];
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &gone), [0]);
    // One stream without the group: something else deleted it.
    let _: u64 = run(raw, &format!("DEL {REDO}"));
    let deleted = ["g", "me", "extend", "", "", "", "", "redo", "1-1", ""];
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &deleted), [-1]);
    let _: u64 = run(raw, &format!("XDEL {LOG} 1-1"));
    let trimmed = ["g", "me", "extend", "", "", "", "", "log", "1-1", ""];
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &trimmed), [2]);
    assert_eq!(call::<Vec<i64>>(raw, &script, &keys, &trimmed), [-1]);
    let _: Value = run(raw, &format!("SET {REDO} mine"));
    let wrong = ["g", "me", "extend", "", "", "", "", "redo", "1-1", ""];
    assert!(fails(raw, &script, &keys, &wrong).contains("WRONGTYPE"));
}

/// Stands before the text of a script: the server does not say what a user may run.
const HIDES_RIGHTS: &str = "local real = redis\n\
    local redis = setmetatable({}, {__index = function(_, name)\n\
      return name ~= 'acl_check_cmd' and real[name] or nil\n\
    end})\n";

#[test]
fn consumers_are_removed_where_the_server_does_not_tell_rights() {
    let server = Server::start();
    let raw = &mut server.raw();
    let script = [
        HIDES_RIGHTS,
        include_str!("../../../lua/lib/rights.lua"),
        include_str!("../../../lua/prune_consumers.lua"),
    ];
    let script = Script::new(&script.concat());
    lanes(raw);
    let _: u64 = run(raw, &format!("XGROUP CREATECONSUMER {LOG} g gone"));
    let _: Value = run(raw, &format!("SET {SESSION}gone 1"));
    let args = ["g", "0", "gone", SESSION];
    let removed: u64 = call(raw, &script, &[LOG, REDO, META], &args);
    assert_eq!(removed, 1);
    assert_eq!(run::<u64>(raw, &format!("EXISTS {SESSION}gone")), 0);
}

type Lane = (String, Vec<(String, Vec<String>, u64)>, Vec<String>);

#[test]
fn claim_expired() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("claim_expired.lua"));
    lanes(raw);
    let _: Value = run(raw, &format!("XADD {REDO} 9-1 parcel p"));
    let _: Value = run(raw, &format!("XREADGROUP GROUP g me STREAMS {REDO} >"));
    for (key, id) in [(LOG, "1-1"), (LOG, "2-1"), (LOG, "3-1"), (REDO, "9-1")] {
        let _: Value = run(raw, &format!("XCLAIM {key} g me 0 {id} IDLE 60000 JUSTID"));
    }
    let _: u64 = run(raw, &format!("XDEL {LOG} 2-1"));
    let keys = [LOG, REDO, META];
    let none: (Lane, Lane, u64, u64) = call(
        raw,
        &script,
        &keys,
        &["g", "you", "90000", "10", "0-0", "0-0", "1000001"],
    );
    assert!(
        [&none.0, &none.1]
            .iter()
            .all(|(next, taken, _)| next == "0-0" && taken.is_empty())
    );
    assert_eq!(none.0.2, ["2-1"], "pending, and removed by someone");
    assert_eq!(none.3, 4, "pending in both streams");

    let first: (Lane, Lane, u64, u64) = call(
        raw,
        &script,
        &keys,
        &["g", "you", "30000", "1", "0-0", "0-0", "1000001"],
    );
    assert_ne!(first.0.0, "0-0", "where to go on");
    let entry = |id: &str, body: &str| {
        (
            id.to_owned(),
            vec!["json".to_owned(), body.to_owned()],
            1_000_001,
        )
    };
    assert_eq!(first.0.1, [entry("1-1", "1")]);
    assert_eq!(first.1.1[0].0, "9-1");
    let next = first.0.0.as_str();
    let rest: (Lane, Lane, u64, u64) = call(
        raw,
        &script,
        &keys,
        &["g", "you", "30000", "10", next, "0-0", "1000001"],
    );
    assert_eq!(rest.0.1, [entry("3-1", "3")]);
    assert_eq!(rest.0.0, "0-0", "the end");
    assert!(
        pending(raw, LOG)
            .iter()
            .all(|(_, owner, ..)| owner == "you")
    );
    let marks =
        |raw: &mut _| -> Vec<u64> { pending(raw, LOG).iter().map(|(.., mark)| *mark).collect() };
    assert_eq!(
        marks(raw),
        [1_000_001, 1_000_001],
        "an unmarked hand-out is one attempt"
    );
    let _: Value = run(raw, &format!("XCLAIM {LOG} g me 0 1-1 RETRYCOUNT 1 JUSTID"));
    let _: Value = run(raw, &format!("XCLAIM {LOG} g me 0 3-1 RETRYCOUNT 5 JUSTID"));
    let again = ["g", "you", "0", "10", "0-0", "0-0", "0"];
    let again: (Lane, Lane, u64, u64) = call(raw, &script, &keys, &again);
    let told: Vec<u64> = again.0.1.iter().map(|(.., mark)| *mark).collect();
    assert_eq!(told, [0, 5], "a mark stays as it is");
    assert_eq!(marks(raw), [0, 5]);
    let gone = fails(
        raw,
        &script,
        &keys,
        &["none", "you", "1", "1", "0-0", "0-0", "1000001"],
    );
    assert!(gone.contains("NOGROUP"), "{gone}");
}

#[test]
fn promote() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("promote.lua" on "lib/later.lua"));
    let keys = [RETRY, BODY, REDO, LATER, LATER_BODY, LOG];
    type Promoted = (i64, i64, i64, i64, i64);
    let (moved, published, wait, missing, _) = call::<Promoted>(raw, &script, &keys, &["10"]);
    assert_eq!((moved, published, wait, missing), (0, 0, -1, 0));
    for n in 1..=3 {
        let _: u64 = run(raw, &format!("ZADD {RETRY} {n} log:{n}-1"));
        let _: u64 = run(raw, &format!("HSET {BODY} log:{n}-1 p{n}"));
    }
    let _: u64 = run(raw, &format!("ZADD {RETRY} 4 log:without-body"));
    let _: u64 = run(raw, &format!("ZADD {RETRY} 99999999999999 log:late"));
    let _: u64 = run(raw, &format!("HSET {BODY} log:late p"));
    let (moved, published, wait, missing, _) = call::<Promoted>(raw, &script, &keys, &["2"]);
    assert_eq!((moved, published, wait, missing), (2, 0, 0, 0));
    let (moved, published, wait, missing, now) = call::<Promoted>(raw, &script, &keys, &["10"]);
    assert_eq!((moved, published, missing), (1, 0, 1));
    assert!(wait > 1_000_000_000, "{wait}");
    assert_eq!(now + wait, 99_999_999_999_999);
    let redo: Vec<(String, Vec<String>)> = run(raw, &format!("XRANGE {REDO} - +"));
    let bodies: Vec<&str> = redo.iter().map(|(_, fields)| fields[1].as_str()).collect();
    assert_eq!(bodies, ["p1", "p2", "p3"], "earliest first");
    assert_eq!(run::<u64>(raw, &format!("HLEN {BODY}")), 1);
    assert_eq!(run::<u64>(raw, &format!("ZCARD {RETRY}")), 1);

    let _: u64 = run(
        raw,
        &format!("ZADD {LATER} 5 due 6 bare 99999999999999 late"),
    );
    let _: u64 = run(raw, &format!("HSET {LATER_BODY} late l"));
    let _: Value = call(
        raw,
        &Script::new("return redis.call('HSET', KEYS[1], 'due', 'json {}')"),
        &[LATER_BODY],
        &[""; 0],
    );
    let (moved, published, _, missing, _) = call::<Promoted>(raw, &script, &keys, &["10"]);
    assert_eq!((moved, published, missing), (0, 1, 1));
    let log: Vec<(String, Vec<String>)> = run(raw, &format!("XRANGE {LOG} - +"));
    assert_eq!(log[0].1, ["json", "{}"]);
    assert_eq!(run::<u64>(raw, &format!("ZCARD {LATER}")), 1);

    // The redelivery stream cannot be written: due retries stay.
    let _: u64 = run(raw, &format!("ZADD {RETRY} 1 log:late"));
    let _: Value = run(raw, &format!("SET {REDO} mine"));
    assert!(fails(raw, &script, &keys, &["10"]).contains("WRONGTYPE"));
    assert_eq!(run::<u64>(raw, &format!("HLEN {BODY}")), 1);
    assert_eq!(run::<u64>(raw, &format!("ZCARD {RETRY}")), 1);
}

#[test]
fn forget() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("prune_consumers.lua" on "lib/rights.lua"),
    );
    let keys = [LOG, REDO, META];
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "0", "", SESSION]),
        0,
        "no lanes"
    );
    lanes(raw);
    for name in ["empty", "busy-in-redo", "other", "me", "never-there"] {
        let _: Value = run(raw, &format!("SET {SESSION}{name} 1"));
    }
    let sessions = |raw: &mut redis::Connection| -> Vec<String> {
        let mut keys: Vec<String> = run(raw, &format!("KEYS {SESSION}*"));
        keys.sort();
        keys.iter()
            .map(|key| key[SESSION.len()..].to_owned())
            .collect()
    };
    let _: u64 = run(raw, &format!("HSET {META} lease:g 3600000"));
    for name in ["empty", "busy-in-redo", "other"] {
        let _: u64 = run(raw, &format!("XGROUP CREATECONSUMER {LOG} g {name}"));
    }
    let _: Value = run(raw, &format!("XADD {REDO} 9-1 parcel p"));
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP g busy-in-redo STREAMS {REDO} >"),
    );
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "3600000", "", SESSION]),
        0,
        "heard of"
    );
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "0", "empty", SESSION]),
        1
    );
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "0", "empty", SESSION]),
        0
    );
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "0", "me", SESSION]),
        0,
        "holds something"
    );
    assert_eq!(
        call::<u64>(raw, &script, &keys, &["g", "0", "", SESSION]),
        1,
        "only `other` is left"
    );
    // The lease of `other` may run, as that of every consumer that did not end by itself.
    let left = ["busy-in-redo", "me", "never-there", "other"];
    assert_eq!(sessions(raw), left);
    let gone = &["g", "0", "never-there", SESSION];
    assert_eq!(call::<u64>(raw, &script, &keys, gone), 0);
    let _: u64 = run(raw, &format!("HSET {META} lease:g 0"));
    let _: u64 = run(raw, &format!("XGROUP CREATECONSUMER {LOG} g other"));
    let all = &["g", "0", "", SESSION];
    assert_eq!(call::<u64>(raw, &script, &keys, all), 1);
    assert_eq!(sessions(raw), ["busy-in-redo", "me"]);
    assert_eq!(pending(raw, LOG).len(), 3);
    assert_eq!(pending(raw, REDO).len(), 1);
}

#[test]
fn schema() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("schema.lua"));
    let mut mark = |action: &str, token: &str, number: &str, lock: &str| -> String {
        call(
            raw,
            &script,
            &["{t}:schema", "{t}:topics"],
            &[action, token, number, "sum", lock, "spread"],
        )
    };
    assert_eq!(mark("begin", "a", "0001", "60000"), "ok");
    assert_eq!(mark("begin", "b", "0001", "60000"), "locked");
    assert_eq!(mark("repair", "b", "0001", "60000"), "locked");
    assert_eq!(mark("finish", "b", "0001", "60000"), "lost");
    assert_eq!(mark("finish-one", "b", "0001", "60000"), "lost");
    assert_eq!(mark("finish-one", "a", "0001", "60000"), "ok");
    assert_eq!(
        mark("begin", "b", "0002", "60000"),
        "locked",
        "until the last"
    );
    assert_eq!(mark("finish", "a", "0001", "60000"), "ok");
    assert_eq!(mark("begin", "b", "0001", "60000"), "applied");
    assert_eq!(mark("begin", "b", "0002", "-1"), "ok");
    assert_eq!(mark("begin", "c", "0002", "60000"), "dirty");
    assert_eq!(mark("repair", "c", "0002", "60000"), "ok");
    assert_eq!(mark("finish", "b", "0002", "60000"), "lost");
    assert_eq!(mark("finish", "c", "0002", "60000"), "ok");
}

#[test]
fn invalidate() {
    let server = Server::start();
    let (mut raw, mut reader) = (server.raw(), server.raw());
    let script = script!("invalidate.lua");
    let _: String = run(&mut reader, "CLIENT TRACKING ON");
    let _: String = run(&mut raw, "XADD stream 1-1 a 1");
    let _: i64 = run(&mut raw, "ZADD zset 1 a");
    let _: i64 = run(&mut raw, "HSET hash a 1");
    let _: String = run(&mut raw, "SET expires 1 EX 1000");
    let watched = |raw: &mut Connection| {
        let stats: String = run(raw, "INFO stats");
        stats.contains("tracking_total_keys:1\r\n")
    };
    for (key, exists) in [("stream", 1), ("zset", 1), ("hash", 1), ("absent", 0)] {
        let dump = format!("DUMP {key}");
        let before: Value = run(&mut raw, &dump);
        let _: i64 = run(&mut reader, &format!("EXISTS {key}"));
        assert!(watched(&mut raw), "{key}");
        let none: &[&str] = &[];
        assert_eq!(call::<i64>(&mut raw, &script, &[key], none), exists);
        assert!(!watched(&mut raw), "{key}");
        assert_eq!(run::<Value>(&mut raw, &dump), before, "{key}");
        let expires: i64 = run(&mut raw, &format!("PTTL {key}"));
        assert_eq!(expires, exists - 2, "{key}");
    }
    let none: &[&str] = &[];
    assert_eq!(call::<i64>(&mut raw, &script, &["expires"], none), 1);
    assert!(run::<i64>(&mut raw, "PTTL expires") > 900_000);
}
