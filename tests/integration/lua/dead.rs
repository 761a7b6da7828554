//! The scripts that add, move and restore dead letters, on shared data.

use redis::{Connection, Script, Value};

use super::{BODY, COUNTS, DEAD, LOG, REDO, RETRY, call, fails, ids, lanes, pending, run};
use crate::support::Server;

const BODIES: &str = "{t}:dead:body";
const CAUSES: &str = "{t}:causes";
const RESTORED: &str = "{t}:restored";
const UNCOUNTED: &str = "{t}:uncounted";
const JOURNAL: &str = "{t}:journal";

/// The head of a dead letter, as the adapter packs it.
fn head(fingerprint: &str, kind: &str) -> Vec<u8> {
    rmp_serde::to_vec(&("rejected", fingerprint, kind, "tenant")).unwrap()
}

type Fields = Vec<(String, String)>;

fn hash(raw: &mut Connection, key: &str) -> Fields {
    let mut fields: Fields = run(raw, &format!("HGETALL {key}"));
    fields.sort();
    fields
}

/// Names of counts, without the hours, and of causes.
fn counted(raw: &mut Connection) -> (Fields, Fields) {
    let mut counts = hash(raw, COUNTS);
    counts.retain(|(name, _)| !name.starts_with("hour:"));
    let causes = hash(raw, CAUSES).into_iter();
    (
        counts,
        causes.filter(|(name, _)| name.starts_with('n')).collect(),
    )
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    fields.iter().map(owned).collect()
}

#[test]
fn settle() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("settle.lua" on "lib/types.lua" and "lib/holders.lua" and "lib/dead_counts.lua"),
    );
    lanes(raw);
    let keys = [LOG, REDO, RETRY, BODY, DEAD, BODIES, COUNTS, CAUSES];
    let head = head("print", "kind");
    let bytes = |words: &[&str]| -> Vec<Vec<u8>> {
        let word = |word: &&str| match *word {
            "HEAD" => head.clone(),
            word => word.as_bytes().to_vec(),
        };
        words.iter().map(word).collect()
    };
    let done: Vec<i64> = call(
        raw,
        &script,
        &keys,
        &bytes(&[
            "g",
            "me",
            "held",
            "1-1",
            "4-1",
            "3-1",
            "3-1", // a retry, a burial, one that is not pending, one of another lane
            "log",
            "1-1",
            "reschedule",
            "60000",
            "parcel-1", //
            "log",
            "2-1",
            "dead-letter",
            "HEAD",
            "body-2", //
            "log",
            "4-1",
            "reschedule",
            "1",
            "parcel-4", //
            "redo",
            "3-1",
            "reschedule",
            "1",
            "parcel-3", //
        ]),
    );
    assert_eq!(done, [1, 1, -1, -1]);
    assert_eq!(ids(&pending(raw, LOG)), ["3-1"]);
    let retries: Vec<(String, i64)> = run(raw, &format!("ZRANGE {RETRY} 0 -1 WITHSCORES"));
    let now: (i64, i64) = run(raw, "TIME");
    assert_eq!(retries.len(), 1);
    assert_eq!(retries[0].0, "log:1-1");
    let wait = retries[0].1 - now.0 * 1000;
    assert!((0..=61_000).contains(&wait), "{wait}");
    assert_eq!(hash(raw, BODY), pairs(&[("log:1-1", "parcel-1")]));
    let dead: Vec<(String, Vec<Vec<u8>>)> = run(raw, &format!("XRANGE {DEAD} - +"));
    assert_eq!(dead[0].1, [b"head".to_vec(), head.clone()]);
    let id = dead[0].0.as_str();
    assert_eq!(hash(raw, BODIES), pairs(&[(id, "body-2")]));
    let cause = |part: &str| format!("{part} rejected print");
    let (n, f, l) = (cause("n"), cause("f"), cause("l"));
    let causes = pairs(&[(&f, id), (&l, id), (&n, "1")]);
    assert_eq!(hash(raw, CAUSES), causes);
    let millis: u64 = id.split_once('-').unwrap().0.parse().unwrap();
    let hour = format!("hour:{}", millis / 3_600_000);
    let counts = pairs(&[(&hour, "1"), ("tenant:tenant", "1"), ("type:kind", "1")]);
    assert_eq!(hash(raw, COUNTS), counts);

    // Another owner, a repeated call, a group that is gone, and an only copy of an entry that another
    // consumer holds: nothing is written.
    for ([group, consumer, needed, id], code) in [
        (["g", "you", "held", "3-1"], 0),
        (["g", "me", "held", "2-1"], -1),
        (["none", "me", "held", "3-1"], 0),
        (["g", "you", "only-copy", "3-1"], 0),
    ] {
        let nothing = [
            group,
            consumer,
            needed,
            "",
            "",
            "",
            "",
            "log",
            id,
            "dead-letter",
            "HEAD",
            "b",
        ];
        let codes: Vec<i64> = call(raw, &script, &keys, &bytes(&nothing));
        assert_eq!(codes, [code], "{nothing:?}");
    }
    for unknown in [
        [
            "g",
            "me",
            "any",
            "",
            "",
            "",
            "",
            "log",
            "3-1",
            "dead-letter",
            "HEAD",
            "b",
        ],
        [
            "g", "me", "held", "", "", "", "", "log", "3-1", "release", "HEAD", "b",
        ],
        [
            "g",
            "me",
            "held",
            "",
            "",
            "",
            "",
            "dead",
            "3-1",
            "dead-letter",
            "HEAD",
            "b",
        ],
    ] {
        let refused = fails(raw, &script, &keys, &bytes(&unknown));
        assert!(refused.contains("unknown"), "{refused}");
    }
    assert_eq!(run::<u64>(raw, &format!("XLEN {DEAD}")), 1);
    assert_eq!(hash(raw, COUNTS), counts);

    // A key of another type: an error names it, nothing is written, the delivery stays pending.
    let dead_letter = bytes(&["g", "me", "log", "3-1", "dead-letter", "HEAD", "b"]);
    let _: Value = run(raw, "SET {t}:text mine");
    for at in 0..keys.len() {
        let mut wrong = keys;
        wrong[at] = "{t}:text";
        let error = fails(raw, &script, &wrong, &dead_letter);
        assert!(
            error.contains("WRONGTYPE\": {t}:text is a string"),
            "{error}"
        );
    }
    assert_eq!(run::<u64>(raw, &format!("XLEN {DEAD}")), 1);
    assert_eq!(hash(raw, BODIES).len(), 1);
    assert_eq!(ids(&pending(raw, LOG)), ["3-1"]);
}

/// Three dead letters, 1-1 to 3-1, put in as settling and importing do it.
fn dead_letters(raw: &mut Connection) -> Vec<String> {
    let script = script!("dead_restore.lua" on "lib/types.lua" and "lib/dead_counts.lua");
    let mut args = vec![b"0".to_vec()];
    for n in 1..=3 {
        args.extend([format!("identity-{n}").into_bytes(), Vec::new()]);
        args.extend([head(if n < 3 { "f" } else { "g" }, "k"), b"body".to_vec()]);
    }
    call(
        raw,
        &script,
        &[DEAD, BODIES, COUNTS, CAUSES, RESTORED],
        &args,
    )
}

/// The packed dimensions of a dead letter; the script does not read them.
fn take(operation: &str, to: &str, counted: [&str; 3], items: &[[&str; 2]]) -> Vec<String> {
    let mut args = vec![operation, to];
    args.extend(counted);
    args.extend(items.iter().flatten());
    args.into_iter().map(str::to_owned).collect()
}

#[test]
fn dead_move_out() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("dead_move_out.lua" on "lib/types.lua"),
    );
    let keys = [DEAD, BODIES, UNCOUNTED, REDO, JOURNAL];
    let ids = dead_letters(raw);
    let (one, two, three) = (&*ids[0], &*ids[1], &*ids[2]);
    // All or none; which of them are there.
    let some = [[one, "parcel"], ["7-7", "p"]];
    let some = take("", "requeue-as", ["me", "0", "sums"], &some);
    assert_eq!(call::<Vec<u64>>(raw, &script, &keys, &some), [1, 0]);
    assert_eq!(run::<u64>(raw, &format!("EXISTS {REDO} {UNCOUNTED}")), 0);
    let redrive = take("", "requeue-as", ["me", "0", "sums"], &[[one, "parcel"]]);
    assert_eq!(call::<Value>(raw, &script, &keys, &redrive), Value::Nil);
    assert_eq!(call::<Vec<u64>>(raw, &script, &keys, &redrive), [0]);
    assert_eq!(run::<u64>(raw, &format!("XLEN {REDO}")), 1);
    assert_eq!(run::<u64>(raw, &format!("EXISTS {JOURNAL}")), 0);
    assert_eq!(hash(raw, UNCOUNTED), pairs(&[("me", "sums")]));

    // The journal counts for an operation that it knows, and only for that.
    let _: Value = run(raw, &format!("HSET {JOURNAL} op order"));
    let redone = take("op", "requeue", ["me", "1", "more"], &[[two, ""]]);
    assert_eq!(call::<Value>(raw, &script, &keys, &redone), Value::Nil);
    assert_eq!(hash(raw, UNCOUNTED), pairs(&[("me", "more")]));
    // Counts of removed dead letters were subtracted.
    let _: Value = run(raw, &format!("DEL {UNCOUNTED}"));
    let unknown = |again| take("other", "discard", ["me", again, "last"], &[[three, ""]]);
    assert_eq!(
        call::<Value>(raw, &script, &keys, &unknown("1")),
        Value::Int(0)
    );
    assert_eq!(run::<u64>(raw, &format!("XLEN {DEAD}")), 1);
    assert_eq!(
        call::<Value>(raw, &script, &keys, &unknown("0")),
        Value::Nil
    );
    let journal = pairs(&[("op", "order"), ("op:cursor", two), ("op:taken", "1")]);
    assert_eq!(hash(raw, JOURNAL), journal);
    let redo: Vec<(String, Vec<String>)> = run(raw, &format!("XRANGE {REDO} - +"));
    let fields: Vec<String> = redo
        .into_iter()
        .map(|(_, fields)| fields.join(" "))
        .collect();
    assert_eq!(fields, ["parcel parcel", "dead body by op"]);
    assert_eq!(run::<u64>(raw, &format!("EXISTS {BODIES}")), 0);

    let _: Value = run(raw, "SET {t}:text mine");
    for at in 0..keys.len() {
        let mut wrong = keys;
        wrong[at] = "{t}:text";
        assert!(fails(raw, &script, &wrong, &redrive).contains("WRONGTYPE\": {t}:text"));
    }
    assert_eq!(run::<u64>(raw, &format!("XLEN {REDO}")), 2);
}

#[test]
fn dead_count() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("dead_subtract.lua" on "lib/types.lua" and "lib/dead_counts.lua"),
    );
    let keys = [UNCOUNTED, COUNTS, CAUSES];
    dead_letters(raw);
    let _: u64 = run(raw, &format!("HSET {UNCOUNTED} me first you second"));
    let mut count = |mine: &str| {
        let args = [
            "2",
            "2",
            "me",
            mine,
            "you",
            "second",
            "type:k",
            "-2",
            "tenant:tenant",
            "-3",
            "rejected f",
            "-1",
            "rejected g",
            "-1",
        ];
        call::<u64>(raw, &script, &keys, &args)
    };
    assert_eq!(count("older"), 0, "more was added meanwhile");
    assert_eq!(count("first"), 1);
    assert_eq!(count("first"), 0, "once");
    let (counts, _) = counted(raw);
    assert_eq!(counts, pairs(&[("type:k", "1")]));
    let causes: Vec<String> = hash(raw, CAUSES)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(causes, ["f rejected f", "l rejected f", "n rejected f"]);

    // A count that another program overwrote restarts.
    let _: u64 = run(raw, &format!("HSET {COUNTS} type:k many"));
    let _: u64 = run(raw, &format!("HSET {UNCOUNTED} me first"));
    let args = ["1", "1", "me", "first", "type:k", "-1"];
    assert_eq!(call::<u64>(raw, &script, &keys, &args), 1);
    assert_eq!(counted(raw).0, pairs(&[]));

    let _: Value = run(raw, "SET {t}:text mine");
    for at in 0..keys.len() {
        let mut wrong = keys;
        wrong[at] = "{t}:text";
        assert!(fails(raw, &script, &wrong, &args).contains("WRONGTYPE\": {t}:text"));
    }
}

#[test]
fn dead_restore() {
    let server = Server::start();
    let (raw, script) = (
        &mut server.raw(),
        script!("dead_restore.lua" on "lib/types.lua" and "lib/dead_counts.lua"),
    );
    let keys = [DEAD, BODIES, COUNTS, CAUSES, RESTORED];
    let ids = dead_letters(raw);
    assert!(ids.iter().all(|id| id.contains('-')), "{ids:?}");
    assert_eq!(
        dead_letters(raw),
        ["", "", ""],
        "a second time adds nothing"
    );
    let put = |again: &str, identity: &str, own: &str, body: &str| {
        let words = [again, identity, own].map(|word| word.as_bytes().to_vec());
        let record = [head("f", "k"), body.as_bytes().to_vec()];
        [words.to_vec(), record.to_vec()].concat()
    };
    let mut given = |args: &[Vec<u8>]| call::<Vec<String>>(raw, &script, &keys, args).remove(0);
    assert_eq!(given(&put("0", "new", &ids[0], "body")), "", "it is here");
    let new = given(&put("0", "new", &ids[0], "another body"));
    assert!(new.contains('-'), "{new}");
    assert_eq!(given(&put("0", "new", "", "another body")), "");
    assert_eq!(
        given(&put("1", "new", "", "another body")),
        "",
        "it is here"
    );
    let _: u64 = run(raw, &format!("XDEL {DEAD} {new}"));
    let _: u64 = run(raw, &format!("HDEL {BODIES} {new}"));
    let mut given = |args: &[Vec<u8>]| call::<Vec<String>>(raw, &script, &keys, args).remove(0);
    assert_eq!(given(&put("0", "new", "", "another body")), "gone");
    let again = given(&put("1", "new", "", "another body"));
    assert!(again.contains('-'), "{again}");
    assert_eq!(given(&put("0", "new", "", "another body")), "");
    assert_eq!(given(&put("1", "new", "", "another body")), "");
    let (counts, causes) = counted(raw);
    assert_eq!(counts, pairs(&[("tenant:tenant", "5"), ("type:k", "5")]));
    assert_eq!(
        causes,
        pairs(&[("n rejected f", "4"), ("n rejected g", "1")])
    );

    // A head that cannot be read is kept, and counted neither when it comes nor when it goes.
    let odd = [
        b"0".to_vec(),
        b"odd".to_vec(),
        Vec::new(),
        b"\xc1".to_vec(),
        b"b".to_vec(),
    ];
    let id = call::<Vec<String>>(raw, &script, &keys, &odd).remove(0);
    assert_eq!(counted(raw).0, counts);
    let out = script!("dead_move_out.lua" on "lib/types.lua");
    let keys_of_take = [DEAD, BODIES, UNCOUNTED, REDO, JOURNAL];
    let odd = take("", "discard", ["me", "0", ""], &[[&id, ""]]);
    let taken: Value = call(raw, &out, &keys_of_take, &odd);
    assert_eq!(taken, Value::Nil);
    assert_eq!(counted(raw).0, counts);

    let _: Value = run(raw, "SET {t}:text mine");
    for at in 0..keys.len() {
        let mut wrong = keys;
        wrong[at] = "{t}:text";
        let error = fails(raw, &script, &wrong, &put("0", "wrong", "", "b"));
        assert!(error.contains("WRONGTYPE\": {t}:text"), "{error}");
    }
    assert_eq!(counted(raw).0, counts);
}
