//! Bells without a server: the questions that a connection gets, and whom it wakes.

use super::table::{BETWEEN_RINGS, READ_WITHIN};
use super::*;
use crate::adapters::redis::net::{Access, Questions};
use crate::domain::Placement;

#[test]
fn another_runtime_takes_no_bell_from_its_holder() {
    let [one, other] = [0, 1].map(|_| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap()
    });
    let net = async { Net::new("redis://127.0.0.1:1", &Access::default(), None) };
    let net = one.block_on(net).unwrap();
    let keys = Keys::new(None, Placement::Spread);
    let bells = BellsByRuntime::default();
    let at = GroupAt::of(&"orders".parse().unwrap(), &"billing".parse().unwrap());
    let bell_of = || bells.current(&net, &keys).unwrap().bell_of(&at);
    let held = one.block_on(async { bell_of() });
    let others = other.block_on(async { bell_of() });
    assert!(!Arc::ptr_eq(&held, &others));
    assert!(Arc::ptr_eq(&held, &one.block_on(async { bell_of() })));
}

fn bells() -> Arc<Bells> {
    let net = Net::new("redis://127.0.0.1:1", &Access::default(), None).unwrap();
    Bells::new(net, Keys::new(None, Placement::Spread))
}

fn at() -> GroupAt {
    GroupAt::of(&"orders".parse().unwrap(), &"billing".parse().unwrap())
}

fn by(ear: &Ear) -> HeardBy {
    let ear = ear.clone();
    Box::new(move |_| Some(ear.clone()))
}

#[tokio::test]
async fn a_group_is_heard_again_after_a_refusal_by_another_node() {
    let bells = bells();
    let bell = bells.bell_of(&at());
    let (ear, mut asked) = Ear::fake(7);
    bells.heard_by(by(&ear));
    assert!(!bell.hears(), "the server does not watch its keys yet");
    (asked.next().unwrap().then)(true);
    assert!(bell.hears());
    bells.refused("NOPERM");
    assert!(!bell.hears() && bells.refusal().is_some());
    bells.heard_by(by(&ear));
    (asked.next().unwrap().then)(true);
    assert!(bell.hears() && bells.refusal().is_none());
}

#[tokio::test]
async fn an_answer_for_an_earlier_connection_counts_nothing() {
    let bells = bells();
    let bell = bells.bell_of(&at());
    let [(one, mut of_one), (other, mut of_other)] = [7, 8].map(Ear::fake);
    bells.heard_by(by(&one));
    bells.heard_by(by(&other));
    (of_one.next().unwrap().then)(true);
    assert!(!bell.hears());
    (of_other.next().unwrap().then)(true);
    assert!(bell.hears());
}

/// Bells that a connection hears, the bell of a group, and what the connection is asked.
fn heard() -> (Arc<Bells>, Arc<Bell>, Questions) {
    let bells = bells();
    let bell = bells.bell_of(&at());
    let (ear, mut asked) = Ear::fake(7);
    bells.heard_by(by(&ear));
    (asked.next().unwrap().then)(true);
    (bells, bell, asked)
}

#[tokio::test]
async fn a_key_that_nobody_reads_is_watched_again_and_rings_then() {
    let (bells, bell, mut asked) = heard();
    let log = bells.keys.log(&at().partition);
    // A reader that looks in time lets the server watch it.
    bells.rang(log.as_bytes());
    let watched = bells.watched(&log).unwrap();
    let told = watched.told();
    bells.rang(log.as_bytes());
    watched.note(told);
    assert!(!watched.is_watched(), "it rang during the look");
    watched.note(watched.told());
    assert!(watched.is_watched());
    assert_eq!(bells.watch_due(Instant::now() + READ_WITHIN), None);
    assert!(asked.next().is_none());
    let (seen, before) = (bell.count(Ring::Entries), Instant::now());
    bells.rang(log.as_bytes());
    assert_eq!(bell.count(Ring::Entries), seen + 1);
    assert!(bells.watch_due(before).is_some(), "a reader has time");
    assert!(asked.next().is_none());
    for _ in 0..10 {
        bells.rang(log.as_bytes());
    }
    bells.watch_due(Instant::now() + READ_WITHIN);
    let ask = asked.next().unwrap();
    assert_eq!(ask.keys, [log.clone().into_bytes()]);
    assert!(asked.next().is_none(), "it is asked for once");
    let seen = seen + 10;
    (ask.then)(true);
    assert_eq!(
        bell.count(Ring::Entries),
        seen + 2,
        "it may have changed meanwhile"
    );
}

#[tokio::test]
async fn a_key_that_rang_during_an_outage_is_watched_again_after_later_rings_too() {
    let (bells, bell, mut asked) = heard();
    let log = bells.keys.log(&at().partition);
    bells.rang(log.as_bytes());
    bells.heard_by(Box::new(|_| None));
    assert!(!bell.hears());
    bells.watch_due(Instant::now() + READ_WITHIN * 2);
    assert!(asked.next().is_none());
    let (ear, mut asked) = Ear::fake(8);
    bells.heard_by(by(&ear));
    assert!((asked.next().unwrap().then)(true));
    bells.rang(log.as_bytes());
    bells.watch_due(Instant::now() + READ_WITHIN * 2);
    let ask = asked.next().unwrap();
    // It rings before the answer: the server watched it for another group, too.
    bells.rang(log.as_bytes());
    assert!((ask.then)(true));
    bells.watch_due(Instant::now() + READ_WITHIN * 2);
    assert!(asked.next().is_some(), "it is not watched yet");
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_rings_while_its_connection_hears() {
    let (bells, bell, mut asked) = heard();
    let log = bells.keys.log(&at().partition);
    bells.rang(log.as_bytes());
    bells.watch_due(Instant::now() + READ_WITHIN * 2);
    let ask = asked.next().unwrap();
    let seen = bell.count(Ring::Entries);
    assert!((ask.then)(false), "it is asked again");
    assert_eq!(bell.count(Ring::Entries), seen + 1);
    let (other, mut of_other) = Ear::fake(8);
    bells.heard_by(by(&other));
    assert!(!(ask.then)(false), "another connection hears it");
    // A slot that moves for long is not heard.
    let begins = of_other.next().unwrap();
    assert!((begins.then)(false) && !bell.hears());
    assert!((begins.then)(true) && bell.hears());
}

#[tokio::test]
async fn a_due_time_rings_when_its_key_is_watched_again_and_not_too_often() {
    let (bells, bell, mut asked) = heard();
    let retry = bells.keys.retry(&at());
    let seen = bell.count(Ring::Due);
    bells.rang(retry.as_bytes());
    assert_eq!(bells.watch_due(Instant::now()), None, "asked at once");
    assert_eq!(bell.count(Ring::Due), seen);
    let before = Instant::now();
    (asked.next().unwrap().then)(true);
    assert_eq!(bell.count(Ring::Due), seen + 1);
    bells.rang(retry.as_bytes());
    let next = bells.watch_due(before).unwrap();
    assert!(next >= before + BETWEEN_RINGS);
    assert!(asked.next().is_none());
    bells.watch_due(next);
    (asked.next().unwrap().then)(true);
    assert_eq!(bell.count(Ring::Due), seen + 2);
}
