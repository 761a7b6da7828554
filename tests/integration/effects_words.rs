//! Words of effects that no adapter sends: the scripts refuse the call before they write anything.

use redis::Value;

use crate::support::Server;

const APPLY: &str = concat!(
    include_str!("../../lua/lib/ids.lua"),
    include_str!("../../lua/lib/bell.lua"),
    include_str!("../../lua/lib/rights.lua"),
    include_str!("../../lua/lib/effects.lua"),
    include_str!("../../lua/apply.lua")
);
const COMMIT: &str = concat!(
    include_str!("../../lua/lib/types.lua"),
    include_str!("../../lua/lib/holders.lua"),
    include_str!("../../lua/lib/ids.lua"),
    include_str!("../../lua/lib/bell.lua"),
    include_str!("../../lua/lib/rights.lua"),
    include_str!("../../lua/lib/effects.lua"),
    include_str!("../../lua/commit.lua")
);
const KEYS: [&str; 8] = ["s", "a", "b", "log", "ids", "before", "later", "bell"];

fn keys(server: &Server) -> Vec<String> {
    server.command(&["KEYS", "*"])
}

/// A call of two lists of effects: the first one writes a value.
fn apply(server: &Server, ttl: &str, words: &[&str]) -> redis::RedisResult<Value> {
    let mut call = redis::cmd("EVAL");
    call.arg(APPLY).arg(KEYS.len()).arg(&KEYS);
    call.arg(&["1", ttl, "1", "set 2 0", "v", "1"]).arg(words);
    call.query(&mut server.raw())
}

#[test]
fn a_number_out_of_range_leaves_nothing() {
    let server = Server::start();
    for words in [
        &["set 3 9223372036854775807", "v"][..],
        &["set 3 -1", "v"],
        &["set 3 x", "v"],
        &["set 3 nan", "v"],
        &["insert 3 9223372036854775807", "v"],
        &["once 3 nan"],
        &["increment 3 x - -"],
        &["increment 3 1.5 - -"],
        &["increment 3 1 0 x"],
        &["increment 3 1 - 5"],
        &["increment 3 92233720368547758070 - -"],
        &["publish 4 5 6 9223372036854775807 json", "id", "{}"],
        &["publish 4 5 6 nan json", "id", "{}"],
        &["publish 4 5 6 -1 json", "id", "{}"],
        &["schedule 7 5 6 8 at nan replace", "id", "json {}"],
        &["schedule 7 5 6 8 at -inf replace", "id", "json {}"],
        &["schedule 7 5 6 8 after inf replace", "id", "json {}"],
        &["schedule 7 5 6 8 at -5 keep", "id", "json {}"],
        &["schedule 7 5 6 9 at 5 keep", "id", "json {}"],
        &["schedule 7 5 9 8 at 5 keep", "id", "json {}"],
        &["schedule 7 9 6 8 at 5 keep", "id", "json {}"],
        &["cancel 7 9", "id"],
    ] {
        let told = apply(&server, "1000", words);
        assert!(told.is_err(), "{words:?}: {told:?}");
        assert_eq!(keys(&server), [""; 0], "{words:?}");
    }
    for ttl in ["0", "-1", "x", "nan", "9223372036854775807"] {
        let told = apply(&server, ttl, &["set 3 0", "v"]);
        assert!(told.is_err(), "a session of {ttl}: {told:?}");
        assert_eq!(keys(&server), [""; 0], "a session of {ttl}");
    }
    apply(&server, "1000", &["set 3 0", "v"]).unwrap();
}

#[test]
fn a_commit_whose_session_cannot_be_stored_leaves_nothing() {
    let server = Server::start();
    let run = |words: &[&str]| -> Value { server.command(words) };
    run(&["XGROUP", "CREATE", "log", "g", "0", "MKSTREAM"]);
    run(&["XADD", "log", "1-1", "json", "{}"]);
    run(&["XREADGROUP", "GROUP", "g", "me", "STREAMS", "log", ">"]);
    for ttl in ["0", "x"] {
        let mut call = redis::cmd("EVAL");
        call.arg(COMMIT).arg(4).arg(&["log", "redo", "s", "a"]);
        call.arg(&["1", ttl, "g", "me", "1-1", "1-1", "", ""]);
        call.arg(&["1-1", "log ack held 1", "set 4 0", "v"]);
        let told = call.query::<Value>(&mut server.raw());
        assert!(told.is_err(), "{ttl}: {told:?}");
        assert_eq!(keys(&server), ["log"], "{ttl}");
        let pending: Vec<Value> = server.command(&["XPENDING", "log", "g", "-", "+", "9"]);
        assert_eq!(pending.len(), 1, "{ttl}");
    }
}
