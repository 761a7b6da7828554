//! The scripts of groups: creation, status, reset.

use super::*;

#[test]
fn group_create() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("group_create.lua" on "lib/types.lua" and "lib/groups.lua"),
    );
    let create = |raw: &mut Connection, args: &[&str]| -> i64 {
        let args = [args, &["shared"]].concat();
        call(raw, &script, &[LOG, REDO, META], &args)
    };
    assert_eq!(create(raw, &["early", "next"]), 1, "there is no log yet");
    for n in 1..=4 {
        let _: String = run(raw, &format!("XADD {LOG} {n}-1 json {n}"));
    }
    assert_eq!(create(raw, &["all", "beginning"]), 1);
    assert_eq!(create(raw, &["late", "next"]), 1);
    assert_eq!(create(raw, &["late", "beginning"]), 0);
    let _: String = run(raw, &format!("XADD {LOG} 5-1 json 5"));
    let status = script!("group_status.lua" on "lib/groups.lua");
    for (group, last, lag) in [("early", "0-0", 5), ("all", "0-0", 5), ("late", "4-1", 1)] {
        let keys = [LOG, REDO, RETRY, DEAD, META];
        let counts: Vec<u64> = call(raw, &status, &keys, &[group, last, ""]);
        assert_eq!(counts[0], lag, "{group}");
    }
    let lanes: Vec<Value> = run(raw, &format!("XINFO GROUPS {REDO}"));
    assert_eq!(lanes.len(), 3);

    // Something has removed the group, and its redeliveries are still there.
    let _: String = run(raw, &format!("XADD {REDO} 9-1 parcel p"));
    for key in [LOG, REDO] {
        assert_eq!(run::<u64>(raw, &format!("XGROUP DESTROY {key} late")), 1);
    }
    assert_eq!(create(raw, &["late", "next"]), 1);
    let _: Value = run(raw, &format!("XREADGROUP GROUP late me STREAMS {REDO} >"));
    let read: Pending = run(raw, &format!("XPENDING {REDO} late - + 100"));
    assert_eq!(ids(&read), ["9-1"]);
    let _: u64 = run(raw, "SADD text x");
    let args = ["g", "next", "shared"];
    let error = attempt::<Value>(raw, &script, &["text", REDO, META], &args);
    assert!(error.unwrap_err().to_string().contains("WRONGTYPE"));

    let own = |raw: &mut Connection, group: &str| -> i64 {
        call(
            raw,
            &script,
            &[LOG, REDO, META],
            &[group, "beginning", "owned"],
        )
    };
    assert_eq!(own(raw, "all"), -1, "it is shared");
    assert_eq!([own(raw, "mine"), own(raw, "mine")], [1, 0]);
    assert_eq!(create(raw, &["mine", "next"]), -1, "it is owned");
}

#[test]
fn group_status() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("group_status.lua" on "lib/groups.lua"),
    );
    let keys = [LOG, REDO, RETRY, DEAD, META];
    let look = |raw: &mut Connection, group| -> Vec<u64> {
        call(raw, &script, &keys, &[group, "3-1", "1"])
    };
    assert!(look(raw, "g").is_empty(), "no topic");
    lanes(raw);
    assert!(look(raw, "none").is_empty(), "no such group");
    assert_eq!(look(raw, "g"), [1, 3, 0, 0, 0]);
    let _: Value = run(raw, &format!("XADD {REDO} 9-1 parcel p"));
    let _: Value = run(raw, &format!("XADD {REDO} 9-2 parcel p"));
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP g me COUNT 1 STREAMS {REDO} >"),
    );
    let _: u64 = run(raw, &format!("ZADD {RETRY} 1 log:x"));
    let _: String = run(raw, &format!("XADD {DEAD} * record r"));
    assert_eq!(look(raw, "g"), [1, 4, 2, 1, 0]);
    let _: u64 = run(raw, &format!("HSET {META} owned:g 1"));
    assert_eq!(look(raw, "g"), [1, 4, 2, 1, 1], "it is owned");
}

#[test]
fn group_reset() {
    let server = Server::start();
    let raw = &mut server.raw();
    let script = script!("group_reset.lua" on "lib/groups.lua");
    let keys = [LOG, REDO, "{t}:cursor", "{t}:members"];
    let reset = |raw: &mut Connection, args: [&str; 4]| -> (u64, u64, String, String) {
        call(raw, &script, &keys, &args)
    };
    for n in 1..=6 {
        let _: String = run(raw, &format!("XADD {LOG} {n}-1 json {n}"));
    }
    let _: String = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    let _: String = run(raw, &format!("XGROUP CREATE {REDO} g 0 MKSTREAM"));
    let none: Vec<Value> = call(raw, &script, &keys, &["none", "end", "", "0"]);
    assert!(none.is_empty(), "no such group");
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP g me COUNT 4 STREAMS {LOG} >"),
    );
    assert_eq!(run::<u64>(raw, &format!("XTRIM {LOG} MAXLEN 5")), 1);

    // A consumer that reads redeliveries alone is live too.
    let _: u64 = run(raw, &format!("XGROUP CREATECONSUMER {REDO} g heir"));
    let at =
        |moved, live, before: &str, after: &str| (moved, live, before.to_owned(), after.to_owned());
    let kept = reset(raw, ["g", "beginning", "", "3600000"]);
    assert_eq!(kept, at(0, 2, "4-1", "4-1"));

    // The server knows the lag after each move.
    let lag = |raw: &mut Connection| -> Option<u64> {
        let groups: Vec<std::collections::HashMap<String, Value>> =
            run(raw, &format!("XINFO GROUPS {LOG}"));
        redis::from_redis_value(groups[0]["lag"].clone()).unwrap()
    };
    let moved = reset(raw, ["g", "beginning", "", "0"]);
    assert_eq!((moved, lag(raw)), (at(1, 0, "4-1", "0-0"), Some(5)));
    let moved = reset(raw, ["g", "5-0", "4-18446744073709551615", "0"]);
    let before = "4-18446744073709551615";
    assert_eq!((moved, lag(raw)), (at(1, 0, "0-0", before), Some(2)));
    let moved = reset(raw, ["g", "end", "", "0"]);
    assert_eq!((moved, lag(raw)), (at(1, 0, before, "6-1"), Some(0)));
    let moved = reset(raw, ["g", "9-0", "8-18446744073709551615", "0"]);
    assert_eq!((moved, lag(raw)), (at(1, 0, "6-1", "6-1"), Some(0)));
    assert_eq!(pending(raw, LOG).len(), 4, "unsettled entries stay");
}
