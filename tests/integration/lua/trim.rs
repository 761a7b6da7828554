//! Trimming a long log.

use super::*;

/// A log of 1,000 entries, 1-1 to 1000-1, in nodes of 100.
fn long_log(raw: &mut Connection) {
    long_log_after(raw, 0);
}

/// As many more, after an entry.
fn long_log_after(raw: &mut Connection, last: u64) {
    let mut pipeline = redis::pipe();
    for n in last + 1..=last + 1000 {
        pipeline
            .cmd("XADD")
            .arg(LOG)
            .arg(format!("{n}-1"))
            .arg("json")
            .arg(n)
            .ignore();
    }
    pipeline.exec(raw).unwrap();
}

fn first(raw: &mut Connection) -> u64 {
    let first: Vec<(String, Vec<String>)> = run(raw, &format!("XRANGE {LOG} - + COUNT 1"));
    first[0].0.split_once('-').unwrap().0.parse().unwrap()
}

type Retained = (u64, u64, u64, u64);

const MEASURE: [&str; 3] = ["", "{t}:group:", "0"];

#[test]
fn trim_by_floor() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let keys = [LOG, META];
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &MEASURE),
        (0, 0, 0, 0),
        "nothing there"
    );
    let _: u64 = run(raw, &format!("HSET {META} topic t retention settled"));
    long_log(raw);
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &MEASURE),
        (0, 1000, 1000, 1),
        "no group"
    );
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} fast 0"));
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} slow 0"));
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &MEASURE),
        (0, 1000, 1000, 1)
    );

    // The fast group has settled everything, the slow one holds 351 and has settled the rest to 450.
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP fast c NOACK STREAMS {LOG} >"),
    );
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP slow c COUNT 450 STREAMS {LOG} >"),
    );
    for n in (1..=450).filter(|n| *n != 351) {
        let _: u64 = run(raw, &format!("XACK {LOG} slow {n}-1"));
    }
    let (removed, left, backlog, _) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!((removed, left), (300, 700), "whole nodes before the floor");
    assert_eq!(backlog, 650, "from the first unsettled entry on");
    let _: u64 = run(raw, "ZADD {t}:group:slow:retry 1 log:1-1 2 log:2-1");
    let _: String = run(raw, "XADD {t}:group:slow:redo 9-1 parcel p");
    let _: Value = run(raw, "XGROUP CREATE {t}:group:slow:redo slow 0");
    let (.., backlog, _) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!(backlog, 653, "with retries and redeliveries");
    let _: u64 = run(raw, "DEL {t}:group:slow:retry {t}:group:slow:redo");
    assert_eq!(first(raw), 301);

    let _: u64 = run(raw, &format!("XACK {LOG} slow 351-1"));
    let (removed, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!(removed, 100);
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP slow c NOACK STREAMS {LOG} >"),
    );
    let (_, left, backlog, _) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!((left, backlog), (0, 0));

    // A group that is set back, so that Redis cannot compute its lag, still keeps its unread entries.
    long_log_after(raw, 2000);
    let _: Value = run(raw, &format!("XGROUP SETID {LOG} slow 2050-1"));
    call::<Retained>(raw, &script, &keys, &MEASURE);
    assert!(first(raw) <= 2051);
}

#[test]
fn trim_by_length_and_age() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let keys = [LOG, META];
    let _: u64 = run(raw, &format!("HSET {META} topic t retention length:250"));
    long_log(raw);
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP g c COUNT 500 STREAMS {LOG} >"),
    );
    for n in 101..=500 {
        let _: u64 = run(raw, &format!("XACK {LOG} g {n}-1"));
    }
    // 600 are not settled, from 1 on, which is pending.
    let (removed, left, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!((removed, left), (0, 1000));
    for n in 1..=100 {
        let _: u64 = run(raw, &format!("XACK {LOG} g {n}-1"));
    }
    // 500 are not settled: more than are to be kept, so everything settled goes.
    let (removed, left, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!((removed, left), (500, 500));
    let _: Value = run(raw, &format!("XREADGROUP GROUP g c NOACK STREAMS {LOG} >"));
    // All are settled: the newest 250 stay, and the entries in the same node.
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!(left, 300);
    // The override for the redelivery stream keeps only unsettled entries.
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &["settled", "", "0"]);
    assert_eq!(left, 0);

    let _: u64 = run(raw, &format!("DEL {LOG}"));
    let _: u64 = run(raw, &format!("HSET {META} retention age:3600000"));
    long_log(raw);
    let _: String = run(raw, &format!("XADD {LOG} * json new"));
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!(left, 1, "old ones go even without a group");
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &MEASURE);
    assert_eq!(left, 1);
}

#[test]
fn trim_in_turn_is_done_once_in_a_while() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let keys = [LOG, META];
    let in_turn = ["", "", "3600000"];
    long_log(raw);
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 500-1"));
    let _: u64 = run(raw, &format!("HSET {META} topic t retention settled"));
    let (removed, ..) = call::<Retained>(raw, &script, &keys, &in_turn);
    assert_eq!(removed, 500);
    let _: Value = run(raw, &format!("XGROUP SETID {LOG} g 700-1"));
    let (removed, left, ..) = call::<Retained>(raw, &script, &keys, &in_turn);
    assert_eq!((removed, left), (0, 500), "it is not its turn");
    // The clock was set back since: the note is of no use.
    let _: u64 = run(raw, &format!("HSET {META} trimmed 99999999999999"));
    let (removed, ..) = call::<Retained>(raw, &script, &keys, &in_turn);
    assert_eq!(removed, 200);
}

/// An envelope in either codec, with a time.
fn envelope(codec: &str, ts: &str) -> Vec<u8> {
    let value = serde_json::json!({"type": "n", "payload": 1, "ts": ts});
    match codec {
        "json" => serde_json::to_vec(&value).unwrap(),
        _ => rmp_serde::to_vec(&value).unwrap(),
    }
}

#[test]
fn trim_by_age_reads_the_envelopes_where_ids_are_ahead_of_the_clock() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let _: u64 = run(raw, &format!("HSET {META} topic t retention age:3600000"));
    let (seconds, _): (i64, i64) = run(raw, "TIME");
    let at = |seconds: i64, zone: &str| {
        let zoned = redstart::envelope::Timestamp::from_millis(1000 * seconds).unwrap();
        zoned.to_string().replace('Z', zone)
    };
    // 300 that are too old by their own time, one of them without a time, then 200 younger ones. A
    // time with an offset of three hours is as old as it reads without it, less three hours.
    let mut pipeline = redis::pipe();
    for n in 1..=500_i64 {
        let ts = match n {
            7 => "never".to_owned(),
            1..=150 => at(seconds - 7200, "Z"),
            151..=300 => at(seconds, "+03:00"),
            301..=400 => at(seconds - 7200, "-03:00"),
            _ => at(seconds - 60, ".250Z"),
        };
        let codec = if n % 2 == 0 { "json" } else { "msgpack" };
        pipeline
            .cmd("XADD")
            .arg(LOG)
            .arg(format!("{}-{n}", 1_000_000 * seconds))
            .arg(codec)
            .arg(envelope(codec, &ts))
            .ignore();
    }
    pipeline.exec(raw).unwrap();
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    let (removed, ..) = call::<Retained>(raw, &script, &[LOG, META], &MEASURE);
    assert_eq!(removed, 0, "nothing is settled");
    let _: Value = run(raw, &format!("XREADGROUP GROUP g c NOACK STREAMS {LOG} >"));
    let (removed, left, ..) = call::<Retained>(raw, &script, &[LOG, META], &MEASURE);
    assert_eq!((removed, left), (300, 200));
}

#[test]
fn trim_compares_ids_that_a_lua_number_cannot_hold() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let big = u64::MAX - 2000;
    let mut pipeline = redis::pipe();
    for n in 0..1000 {
        pipeline
            .cmd("XADD")
            .arg(LOG)
            .arg(format!("7-{}", big + n))
            .arg("json")
            .arg(n)
            .ignore();
    }
    pipeline.exec(raw).unwrap();
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} one 7-{}", big + 849));
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} two 7-{}", big + 449));
    let (removed, left, ..) = call::<Retained>(raw, &script, &[LOG, META], &MEASURE);
    assert_eq!((removed, left), (400, 600));
}
