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

#[test]
fn trim_by_floor() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("trim.lua" on "lib/groups.lua"));
    let keys = [LOG, META];
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &[""]),
        (0, 0, 0, 0),
        "nothing there"
    );
    let _: u64 = run(raw, &format!("HSET {META} topic t retention settled"));
    long_log(raw);
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &[""]),
        (0, 1000, 1000, 1),
        "no group"
    );
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} fast 0"));
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} slow 0"));
    assert_eq!(
        call::<Retained>(raw, &script, &keys, &[""]),
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
    let (removed, left, backlog, _) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!((removed, left), (300, 700), "whole nodes before the floor");
    assert_eq!(backlog, 551);
    assert_eq!(first(raw), 301);

    let _: u64 = run(raw, &format!("XACK {LOG} slow 351-1"));
    let (removed, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!(removed, 100);
    let _: Value = run(
        raw,
        &format!("XREADGROUP GROUP slow c NOACK STREAMS {LOG} >"),
    );
    let (_, left, backlog, _) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!((left, backlog), (0, 0));

    // A group that is set back, so that Redis cannot compute its lag, still keeps its unread entries.
    long_log_after(raw, 2000);
    let _: Value = run(raw, &format!("XGROUP SETID {LOG} slow 2050-1"));
    call::<Retained>(raw, &script, &keys, &[""]);
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
    let (removed, left, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!((removed, left), (0, 1000));
    for n in 1..=100 {
        let _: u64 = run(raw, &format!("XACK {LOG} g {n}-1"));
    }
    // 500 are not settled: more than are to be kept, so everything settled goes.
    let (removed, left, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!((removed, left), (500, 500));
    let _: Value = run(raw, &format!("XREADGROUP GROUP g c NOACK STREAMS {LOG} >"));
    // All are settled: the newest 250 stay, and the entries in the same node.
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!(left, 300);
    // The override for the redelivery stream keeps only unsettled entries.
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &["settled"]);
    assert_eq!(left, 0);

    let _: u64 = run(raw, &format!("DEL {LOG}"));
    let _: u64 = run(raw, &format!("HSET {META} retention age:3600000"));
    long_log(raw);
    let _: String = run(raw, &format!("XADD {LOG} * json new"));
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!(left, 1, "old ones go even without a group");
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    let (_, left, ..) = call::<Retained>(raw, &script, &keys, &[""]);
    assert_eq!(left, 1);
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
    let (removed, left, ..) = call::<Retained>(raw, &script, &[LOG, META], &[""]);
    assert_eq!((removed, left), (400, 600));
}
