//! The script that appends each entry once.

use super::*;

/// Calls the script for messages whose ids are letters.
fn append_once(raw: &mut Connection, window: &str, letters: &str) -> Vec<Value> {
    let mut args = vec![window.to_owned()];
    for letter in letters.chars() {
        args.extend([letter.to_string().repeat(16), "json".into(), letter.into()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let script = script!("append_once.lua" on "lib/ids.lua");
    call(
        raw,
        &script,
        &["{t}:log", "{t}:ids", "{t}:ids:before"],
        &args,
    )
}

fn is_new(value: &Value) -> bool {
    matches!(value, Value::BulkString(_))
}

#[test]
fn append_once_adds_each_once_and_keeps_two_generations() {
    let server = Server::start();
    let raw = &mut server.raw();
    let first = append_once(raw, "60000", "aba");
    assert!(is_new(&first[0]) && is_new(&first[1]));
    assert_eq!(first[2], Value::Array(vec![first[0].clone()]));
    assert_eq!(
        append_once(raw, "60000", "b"),
        [Value::Array(vec![first[1].clone()])]
    );
    assert_eq!(run::<u64>(raw, "XLEN {t}:log"), 2);
    let (since, span): (u64, u64) = run(raw, "HMGET {t}:ids since span");
    assert_eq!(span, 60_000);
    let ends: u64 = run(raw, "PEXPIRETIME {t}:ids");
    assert_eq!(ends, since + 120_000);
    assert_eq!(run::<u64>(raw, "EXISTS {t}:ids:before"), 0);

    // A longer window stretches the generation, a shorter one leaves it.
    append_once(raw, "90000", "c");
    append_once(raw, "10", "d");
    let now: (u64, u64) = run(raw, "HMGET {t}:ids since span");
    assert_eq!(now, (since, 90_000));
    assert_eq!(run::<u64>(raw, "PEXPIRETIME {t}:ids"), since + 180_000);

    // One that has lasted for its span becomes the one before: its ids are still known, and its end
    // stays.
    let past = since - 90_000;
    let _: Value = run(raw, &format!("HSET {{t}}:ids since {past}"));
    assert!(is_new(&append_once(raw, "20", "e")[0]));
    let before: (u64, u64) = run(raw, "HMGET {t}:ids:before since span");
    assert_eq!(before, (past, 90_000));
    assert_eq!(
        run::<u64>(raw, "PEXPIRETIME {t}:ids:before"),
        since + 180_000
    );
    assert!(!is_new(&append_once(raw, "90000", "a")[0]));
    assert_eq!(run::<u64>(raw, "HLEN {t}:ids"), 3);

    // And it stays that for its own span, however short the next one's is.
    let now: u64 = run(raw, "HGET {t}:ids since");
    let past = now - 80_000;
    let _: Value = run(raw, &format!("HSET {{t}}:ids since {past}"));
    append_once(raw, "20", "f");
    assert!(!is_new(&append_once(raw, "90000", "a")[0]));
    let past = now - 90_000;
    let _: Value = run(raw, &format!("HSET {{t}}:ids since {past}"));
    append_once(raw, "20", "g");
    assert!(is_new(&append_once(raw, "90000", "a")[0]), "two spans ago");

    // Called without anything new it writes nothing.
    let changes = |raw: &mut Connection| -> String {
        let info: String = run(raw, "INFO persistence");
        let line = info.lines().find(|line| line.starts_with("rdb_changes"));
        line.unwrap().to_owned()
    };
    let before = changes(raw);
    assert!(!is_new(&append_once(raw, "90000", "a")[0]));
    assert_eq!(changes(raw), before);
}

#[test]
fn append_once_takes_a_full_batch_and_any_bytes() {
    let server = Server::start();
    let raw = &mut server.raw();
    let mut call = redis::cmd("EVAL");
    call.arg(concat!(
        include_str!("../../../lua/lib/ids.lua"),
        include_str!("../../../lua/append_once.lua")
    ))
    .arg(3);
    call.arg("{t}:log")
        .arg("{t}:ids")
        .arg("{t}:ids:before")
        .arg(1000);
    for n in 0..500_u128 {
        // Zero bytes, line ends and invalid UTF-8.
        call.arg(&(n * 0x0d0a_00ff).to_be_bytes()[..])
            .arg("json")
            .arg(&[0_u8, 255, 13][..]);
    }
    let results: Vec<Value> = call.query(raw).unwrap();
    assert_eq!(results.iter().filter(|one| is_new(one)).count(), 500);
    assert_eq!(run::<u64>(raw, "HLEN {t}:ids"), 502);
}

#[test]
fn append_once_writes_nothing_to_a_key_of_another_type() {
    let server = Server::start();
    let raw = &mut server.raw();
    let keys = ["{t}:log", "{t}:ids", "{t}:ids:before"];
    let args = ["1000", "0123456789abcdef", "json", "{}"];
    for wrong in keys {
        let _: Value = run(raw, "FLUSHALL");
        let _: Value = run(raw, &format!("SET {wrong} mine"));
        let script = script!("append_once.lua" on "lib/ids.lua");
        let reply = attempt::<Vec<Value>>(raw, &script, &keys, &args);
        let told = match reply {
            Err(error) => error.to_string(),
            Ok(replies) => format!("{replies:?}"),
        };
        assert!(told.contains("WRONGTYPE"), "{wrong}: {told}");
        assert_eq!(run::<u64>(raw, "DBSIZE"), 1, "{wrong}");
    }
}

#[test]
fn append_once_is_refused_as_a_whole_when_memory_is_full() {
    let server = Server::start();
    let raw = &mut server.raw();
    append_once(raw, "60000", "a");
    let _: Value = run(raw, "CONFIG SET maxmemory 1");
    let args = ["60000", "bbbbbbbbbbbbbbbb", "json", "b"];
    let keys = ["{t}:log", "{t}:ids", "{t}:ids:before"];
    let told = match attempt::<Vec<Value>>(
        raw,
        &script!("append_once.lua" on "lib/ids.lua"),
        &keys,
        &args,
    ) {
        Err(error) => error.to_string(),
        Ok(replies) => format!("{replies:?}"),
    };
    assert!(told.contains("OOM") || told.contains("maxmemory"), "{told}");
    assert_eq!(run::<u64>(raw, "XLEN {t}:log"), 1);
    assert_eq!(run::<u64>(raw, "HLEN {t}:ids"), 3);
    assert!(
        !is_new(&append_once(raw, "60000", "a")[0]),
        "a repeat is still told"
    );
}
