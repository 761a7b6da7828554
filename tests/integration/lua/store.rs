//! The scripts of the key-value store.

use super::*;

#[test]
fn kv_cas() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("kv_cas.lua"));
    let mut cas =
        |args: &[&str]| call::<(u64, Option<String>)>(raw, &padded(&script), &["k"], args);
    assert_eq!(cas(&["1", "a", "b", "0"]), (0, None), "absent");
    assert_eq!(cas(&["0", "", "a", "0"]), (1, None), "set");
    assert_eq!(cas(&["0", "", "b", "0"]), (0, Some("a".into())), "present");
    assert_eq!(cas(&["1", "x", "b", "0"]), (0, Some("a".into())), "differs");
    assert_eq!(cas(&["1", "a", "b", "60000"]), (1, None), "swapped");
    assert_eq!(
        cas(&["1", "a", "", "delete"]),
        (0, Some("b".into())),
        "differs"
    );
    let left: i64 = run(raw, "PTTL k");
    assert!((1..=60_000).contains(&left));
    let mut delete = || {
        let args = ["1", "b", "", "delete"];
        call::<(u64, Option<String>)>(raw, &padded(&script), &["k"], &args)
    };
    assert_eq!(delete(), (1, None), "deleted");
    assert_eq!(delete(), (0, None), "absent");
    let _: u64 = run(raw, "LPUSH list x");
    assert!(fails(raw, &script, &["list"], &["0", "", "a", "0"]).contains("WRONGTYPE"));
}

/// A script whose reply may have one part or two.
fn padded(script: &Script) -> Script {
    let _ = script;
    Script::new(concat!(
        "local function inner() ",
        include_str!("../../../lua/kv_cas.lua"),
        " end local reply = inner() return {reply[1], reply[2] or false}"
    ))
}

#[test]
fn once_claim_and_once_settle() {
    let server = Server::start();
    let raw = &mut server.raw();
    let (claim, settle) = (script!("once_claim.lua"), script!("once_settle.lua"));
    let ask = |raw: &mut Connection, token: &str| -> Vec<String> {
        call(raw, &claim, &["k"], &[token, "60000"])
    };
    let end = |raw: &mut Connection, token: &str, what: &str| -> u64 {
        call(raw, &settle, &["k"], &[token, what, "60000", "result"])
    };
    assert_eq!(ask(raw, "a"), ["claimed"]);
    assert_eq!(ask(raw, "a"), ["claimed"], "the reply was lost");
    assert_eq!(ask(raw, "b"), ["busy"]);
    assert_eq!(end(raw, "b", "complete"), 0);
    assert_eq!(end(raw, "a", "extend"), 1);
    assert_eq!(end(raw, "a", "release"), 1);
    assert_eq!(end(raw, "a", "release"), 0);
    assert_eq!(ask(raw, "b"), ["claimed"]);
    assert_eq!(end(raw, "b", "complete"), 1);
    assert_eq!(end(raw, "b", "complete"), 1, "the reply was lost");
    assert_eq!(
        end(raw, "a", "complete"),
        0,
        "another's, though the result is equal"
    );
    assert_eq!(ask(raw, "c"), ["done", "result"]);
    let _: Value = run(raw, "SET k true");
    assert_eq!(ask(raw, "c"), ["done"], "a mark without a result");
    let _: Value = run(raw, "SET k 7");
    assert_eq!(ask(raw, "c"), ["value"]);

    let _: Value = run(raw, "DEL k");
    let begin = |raw: &mut Connection, token: &str, lease: &str| -> u64 {
        call(raw, &settle, &["k"], &[token, "begin", "60000", lease])
    };
    assert_eq!(begin(raw, "a", "60000"), 0);
    assert_eq!(ask(raw, "a"), ["claimed"]);
    assert_eq!(begin(raw, "b", "60000"), 0);
    assert_eq!(begin(raw, "a", "60000"), 1);
    assert_eq!(ask(raw, "b"), ["busy"]);
    assert_eq!(begin(raw, "a", "-1"), 1);
    assert_eq!(ask(raw, "b"), ["begun"]);
    assert_eq!(end(raw, "b", "extend"), 0);
    assert_eq!(end(raw, "a", "extend"), 1);
    assert_eq!(ask(raw, "b"), ["busy"]);
    assert_eq!(end(raw, "a", "complete"), 1);
    assert_eq!(ask(raw, "b"), ["done", "result"]);
}
