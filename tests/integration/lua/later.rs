//! The scripts of messages for later.

use redis::{Connection, Script, Value};

use super::{LATER, LATER_BELL, LATER_BODY, LOG, META, call, fails, run};
use crate::support::Server;

const FAR: u64 = 99_999_999_999_999;

fn put(raw: &mut Connection, messages: &[[&str; 6]]) -> Vec<String> {
    let script = script!("later_put.lua" on "lib/types.lua" and "lib/later.lua" and "lib/bell.lua");
    let keys = [LATER, LATER_BODY, META, LATER_BELL];
    let mut told: Vec<String> = call(raw, &script, &keys, &messages.concat());
    told.remove(0);
    told
}

fn reschedule(raw: &mut Connection, args: [&str; 3]) -> Vec<String> {
    let script = script!("later_reschedule.lua" on "lib/bell.lua");
    call(raw, &script, &[LATER, LATER_BELL], &args)
}

fn promote(raw: &mut Connection, most: &str) -> (i64, i64, i64) {
    let script = script!("later_promote.lua" on "lib/later.lua");
    call(raw, &script, &[LATER, LATER_BODY, LOG], &[most])
}

/// The id of the bell's entry: another one has rung.
fn bell(raw: &mut Connection) -> Option<String> {
    let entries: Vec<(String, Value)> = run(raw, &format!("XRANGE {LATER_BELL} - +"));
    assert!(entries.len() < 2, "{entries:?}");
    entries.into_iter().next().map(|(id, _)| id)
}

fn values(raw: &mut Connection) -> Vec<String> {
    let log: Vec<(String, Vec<String>)> = run(raw, &format!("XRANGE {LOG} - +"));
    let value = |(_, fields): (String, Vec<String>)| fields[1].clone();
    log.into_iter().map(value).collect()
}

/// Every subscription looks every five seconds, so only what is due before rings.
#[test]
fn only_a_message_that_is_due_soon_rings() {
    let server = Server::start();
    let raw = &mut server.raw();
    let _: u64 = run(raw, &format!("HSET {META} topic t"));
    let far = FAR.to_string();
    assert_eq!(
        put(raw, &[["a", "at", &far, "replace", "json", "{}"]]),
        [format!("new {far}")]
    );
    put(raw, &[["b", "after", "20000", "replace", "json", "{}"]]);
    assert_eq!(bell(raw), None);
    let mut last = None;
    let mut rings = |raw: &mut Connection, what: &str| {
        let now = bell(raw);
        assert_ne!(now, last, "{what}");
        last = now;
    };
    let soon = ["c", "after", "6000", "replace", "json", "{}"];
    put(raw, &[["d", "at", &far, "keep", "json", "{}"], soon]);
    rings(raw, "a delay of six seconds");
    put(raw, &[["d", "at", "5", "replace", "json", "{}"]]);
    rings(raw, "a time that has passed");
    reschedule(raw, ["a", "after", "1000"]);
    rings(raw, "a nearer time");
    for (id, when, millis) in [("a", "at", &*far), ("none", "after", "1")] {
        reschedule(raw, [id, when, millis]);
    }
    put(raw, &[["d", "after", "5", "keep", "json", "{}"]]);
    let quiet = bell(raw);
    assert_eq!(quiet, last, "far, unknown and kept");

    // A bell that cannot ring takes nothing with it.
    let _: Value = run(raw, &format!("DEL {LATER_BELL}"));
    let _: Value = run(raw, &format!("SET {LATER_BELL} mine"));
    let told = put(raw, &[["e", "at", "7", "replace", "json", "{}"]]);
    assert_eq!(told, ["new 7"]);
    assert_eq!(reschedule(raw, ["e", "at", "8"])[1], "8");
}

#[test]
fn messages_are_put_once_within_the_limit() {
    let server = Server::start();
    let raw = &mut server.raw();
    let far = FAR.to_string();
    let message = |id, how, value| [id, "at", &*far, how, "json", value];
    assert_eq!(
        put(raw, &[message("a", "replace", "1")]),
        ["no-topic"],
        "nothing is kept for a topic without settings"
    );
    assert_eq!(run::<u64>(raw, "DBSIZE"), 0);
    let _: u64 = run(raw, &format!("HSET {META} topic t backlogLimit 2"));
    let told = put(
        raw,
        &[
            message("a", "replace", "1"),
            message("b", "replace", "2"),
            message("c", "replace", "3"),
            message("a", "keep", "4"),
            message("b", "replace", "5"),
        ],
    );
    let due = |word: &str| format!("{word} {far}");
    assert_eq!(
        told,
        [
            due("new"),
            due("new"),
            "full 2 1".into(),
            due("kept"),
            due("replaced")
        ]
    );
    assert_eq!(run::<u64>(raw, &format!("ZCARD {LATER}")), 2);
    let bodies: Vec<String> = run(raw, &format!("HMGET {LATER_BODY} a b"));
    assert_eq!(bodies, ["json 1", "json 5"]);
    let _: Value = run(raw, &format!("DEL {LATER_BODY}"));
    let _: Value = run(raw, &format!("SET {LATER_BODY} mine"));
    let script = script!("later_put.lua" on "lib/types.lua" and "lib/later.lua" and "lib/bell.lua");
    let keys = [LATER, LATER_BODY, META, LATER_BELL];
    let sooner = ["a", "at", "5", "replace", "json", "6"];
    let told = fails(raw, &script, &keys, &sooner);
    assert!(told.contains("WRONGTYPE"), "{told}");
    let due: u64 = run(raw, &format!("ZSCORE {LATER} a"));
    assert_eq!(due, FAR, "nothing was written");
}

#[test]
fn due_messages_leave_earliest_first_and_once() {
    let server = Server::start();
    let raw = &mut server.raw();
    assert_eq!(promote(raw, "10"), (0, -1, 0));
    let _: u64 = run(raw, &format!("HSET {META} topic t"));
    let (numbers, far) = ((1..=60_u32).rev(), FAR.to_string());
    for n in numbers {
        let (id, due) = (n.to_string(), n.to_string());
        put(raw, &[[&id, "at", &due, "replace", "json", &id]]);
    }
    put(raw, &[["late", "at", &far, "replace", "json", "late"]]);
    let _: u64 = run(raw, &format!("HDEL {LATER_BODY} 7"));
    let (moved, next, missing) = promote(raw, "40");
    assert_eq!(
        (moved, next, missing),
        (39, 0, 1),
        "at most 40, and 7 has no body"
    );
    let (moved, next, missing) = promote(raw, "40");
    assert_eq!((moved, missing), (20, 0));
    assert!(next > 1_000_000_000, "{next}");
    assert_eq!(promote(raw, "40").0, 0);
    let expected: Vec<String> = (1..=60)
        .filter(|n| *n != 7)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(values(raw), expected);
    assert_eq!(
        run::<Vec<String>>(raw, &format!("ZRANGE {LATER} 0 -1")),
        ["late"]
    );
    assert_eq!(
        run::<Vec<String>>(raw, &format!("HKEYS {LATER_BODY}")),
        ["late"]
    );
}

/// The stream gives its last ids: what was appended is not appended again, and nothing is lost.
#[test]
fn a_full_stream_takes_what_it_can() {
    let server = Server::start();
    let raw = &mut server.raw();
    let _: u64 = run(raw, &format!("HSET {META} topic t"));
    let _: Value = run(
        raw,
        &format!("XADD {LOG} 18446744073709551615-18446744073709551613 json 0"),
    );
    for n in ["1", "2", "3"] {
        put(raw, &[[n, "at", n, "replace", "json", n]]);
    }
    assert_eq!(promote(raw, "10"), (2, 0, 0));
    assert_eq!(values(raw), ["0", "1", "2"]);
    let script = script!("later_promote.lua" on "lib/later.lua");
    let told = fails(raw, &script, &[LATER, LATER_BODY, LOG], &["10"]);
    assert!(told.contains("exhausted"), "{told}");
    assert_eq!(
        run::<Vec<String>>(raw, &format!("ZRANGE {LATER} 0 -1")),
        ["3"]
    );
    assert_eq!(
        run::<Vec<String>>(raw, &format!("HKEYS {LATER_BODY}")),
        ["3"]
    );
    for key in [LATER_BODY, LOG] {
        let _: Value = run(raw, &format!("SET {key} mine"));
        let told = fails(raw, &script, &[LATER, LATER_BODY, LOG], &["10"]);
        assert!(told.contains("WRONGTYPE"), "{key}: {told}");
        let _: Value = run(raw, &format!("DEL {key}"));
    }
    assert_eq!(run::<u64>(raw, &format!("ZCARD {LATER}")), 1);
}

#[test]
fn a_cancelled_message_leaves_nothing() {
    let server = Server::start();
    let raw = &mut server.raw();
    let _: u64 = run(raw, &format!("HSET {META} topic t"));
    for id in ["a", "b"] {
        put(raw, &[[id, "at", "1", "replace", "json", id]]);
    }
    let script = script!("later_cancel.lua" on "lib/types.lua");
    let keys = [LATER, LATER_BODY];
    let done: Vec<u64> = call(raw, &script, &keys, &["a", "none"]);
    assert_eq!(done, [1, 0]);
    assert_eq!(
        run::<Vec<String>>(raw, &format!("HKEYS {LATER_BODY}")),
        ["b"]
    );
    assert_eq!(promote(raw, "10").0, 1);
    assert_eq!(values(raw), ["b"]);
    let done: Vec<u64> = call(raw, &script, &keys, &["a", "b"]);
    assert_eq!(done, [0, 0], "cancelled and due");
    assert_eq!(reschedule(raw, ["b", "after", "5"]), [""; 0]);
    assert_eq!(run::<u64>(raw, &format!("EXISTS {LATER}")), 0);
    let _: Value = run(raw, &format!("ZADD {LATER} 1 a"));
    let _: Value = run(raw, &format!("SET {LATER_BODY} mine"));
    assert!(fails(raw, &script, &keys, &["a"]).contains("WRONGTYPE"));
    assert_eq!(run::<u64>(raw, &format!("ZCARD {LATER}")), 1);
}

/// Commits ring as scheduling does, once for a call.
#[test]
fn an_effect_that_is_due_soon_rings() {
    let server = Server::start();
    let raw = &mut server.raw();
    let script: Script = script!("apply.lua" on "lib/rights.lua" and "lib/ids.lua" and "lib/bell.lua" and "lib/effects.lua");
    let keys = ["session", LATER, LATER_BODY, META, LATER_BELL];
    let schedule = |number: &str, word: &str, count: usize| -> String {
        let word = format!("schedule 2 3 4 5 {word}");
        let list = ["1", &*word, number, "json {}"].repeat(count);
        let args = [vec![number, "1000"], list].concat();
        call(&mut server.raw(), &script, &keys, &args)
    };
    assert_eq!(schedule("1", "after 20000 replace", 1), "done");
    assert_eq!(bell(raw), None);
    assert_eq!(schedule("2", "after 6000 replace", 2), "done\ndone");
    let rung = bell(raw);
    // One time holds for a whole script, so a second entry would have the number 1.
    assert!(rung.as_ref().unwrap().ends_with("-0"), "{rung:?}");
    assert_eq!(schedule("3", "at 5 replace", 1), "done");
    let again = bell(raw);
    assert_ne!(again, rung);
    // A known message that is kept, and a repeated call, change nothing.
    assert_eq!(schedule("3", "at 5 replace", 1), "done");
    let word = "schedule 2 3 4 5 at 5 keep";
    let args = ["4", "1000", "1", word, "3", "json {}"];
    let kept: String = call(raw, &script, &keys, &args);
    assert_eq!(kept, "done");
    assert_eq!(bell(raw), again);
}
