//! Short histories about attempts, dead letters and their neighbours, written by hand.

use crate::checker::{Promise, check};
use crate::history::{End, Event, Fate};
use crate::story::{LIVES, Story, letter, rules};

/// A published message whose processes die: first unseen, then at each of these attempts.
fn crashing(attempts: &[u32]) -> Story {
    let mut story = Story::new();
    story.published(1, Fate::Ok);
    story.fault("a kill", false).healed("a kill");
    for attempt in attempts {
        story.begun("orders", 1, "1-0", *attempt);
        story.fault("a kill", false).healed("a kill");
    }
    story
}

#[test]
fn a_handler_began_each_attempt_of_a_dead_letter() {
    let dead = |attempts: &[u32]| crashing(attempts).dead_lettered(Some(1), "1-0", 3).broken();
    assert_eq!(dead(&[1, 2, 3]), []);
    // The first hand-out was not marked, and the next process died between the mark and the handler.
    assert_eq!(dead(&[2, 3]), []);
    assert_eq!(dead(&[1, 3]), []);
    assert_eq!(dead(&[3]), []);
    assert_eq!(dead(&[1]), [Promise::Begun]);
    assert_eq!(dead(&[]), [Promise::Begun]);
}

#[test]
fn attempts_without_a_handler_are_counted_and_need_a_fault() {
    let mut calm = Story::new();
    calm.published(1, Fate::Ok).handled(1, 2, End::Ack);
    calm.fault("a kill", false).healed("a kill");
    assert_eq!(calm.broken(), [Promise::Begun]);

    let mut story = crashing(&[]);
    assert_eq!(story.handled(1, 3, End::Ack).broken(), []);
    let counts = check(&story.0, &rules()).counts;
    assert_eq!((counts.unmarked, counts.cut_short), (1, 1));
}

#[test]
fn a_failed_attempt_makes_a_new_entry() {
    // The hand-out of the retry was not marked, and its process died.
    let mut story = Story::new();
    story.published(1, Fate::Ok).handled(1, 1, End::Fail);
    story.fault("a kill", false).healed("a kill");
    assert_eq!(story.handled(1, 3, End::Ack).broken(), []);
    let counts = check(&story.0, &rules()).counts;
    assert_eq!((counts.unmarked, counts.cut_short), (1, 0));
}

#[test]
fn only_a_handler_exhausts_or_rejects_a_message() {
    let story = |reason| {
        let mut story = crashing(&[1, 2]);
        story.dead_as(reason, Some(1), "1-0", 3).broken()
    };
    assert_eq!(story("crashed"), []);
    assert_eq!(story("exhausted"), [Promise::Begun]);
}

#[test]
fn a_redriven_message_counts_anew() {
    let mut story = Story::new();
    story.published(1, Fate::Ok).handled(1, 1, End::Reject);
    story.listed(1).redrive(1, 1, Some(true));
    assert_eq!(story.handled(1, 1, End::Ack).broken(), []);
}

#[test]
fn a_listed_dead_letter_has_no_attempt_beyond_the_last() {
    let listed = |attempts| {
        let mut story = crashing(&[1, 2, 3]);
        story.add(Event::Listed {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            since: 0,
            letters: vec![letter("crashed", Some(1), "1-0", attempts)],
        });
        story
            .redrive(1, 1, Some(true))
            .handled(1, 1, End::Ack)
            .broken()
    };
    assert_eq!(listed(3), []);
    assert!(listed(4).contains(&Promise::Attempts));
}

#[test]
fn a_message_dies_only_by_its_own_handler() {
    let dead = |n: u64| {
        let mut story = Story::new();
        story.published(n, Fate::Ok);
        for attempt in 1..4 {
            story.begun("orders", n, "1-0", attempt);
            story.fault("a kill", false).healed("a kill");
        }
        story.dead_lettered(Some(n), "1-0", 3).broken()
    };
    assert_eq!(dead(LIVES - 1), []);
    assert_eq!(dead(LIVES), [Promise::NeighboursLive]);
}

#[test]
fn a_poison_message_explains_the_end_of_its_process() {
    let mut story = Story::new();
    story.published(1, Fate::Ok);
    for attempt in 1..4 {
        story.handled(1, attempt, End::Abort);
    }
    assert_eq!(story.dead_lettered(Some(1), "1-0", 3).broken(), []);
    assert_eq!(check(&story.0, &rules()).counts.aborted, 3);
}

#[test]
fn a_fault_of_one_topic_explains_nothing_of_another() {
    let again = |topic| {
        let mut story = Story::new();
        story.published(1, Fate::Ok).begun("orders", 1, "1-0", 1);
        story.fault_of(topic, "a kill").healed("a kill");
        story.handled(1, 2, End::Ack).broken()
    };
    assert_eq!(again("orders"), []);
    assert_eq!(again("toxic"), [Promise::NoNeedlessRepeat]);
}

#[test]
fn a_message_given_back_at_a_restart_comes_again_uncounted() {
    let given_back = |fault, attempt| {
        let mut story = Story::new();
        story.published(1, Fate::Ok).fault(fault, false);
        story.handled(1, 1, End::GiveBack).healed(fault);
        story.handled(1, attempt, End::Ack).broken()
    };
    assert_eq!(given_back("a restart", 1), []);
    assert_eq!(given_back("a restart", 2), [Promise::Begun]);
    // Another consumer took it over before its handler was cancelled.
    assert_eq!(given_back("a freeze", 2), []);

    let mut unsettled = Story::new();
    unsettled
        .published(1, Fate::Ok)
        .handled(1, 1, End::GiveBack);
    assert_eq!(unsettled.broken(), [Promise::NothingLost]);
    let mut unprovoked = Story::new();
    unprovoked
        .published(1, Fate::Ok)
        .handled(1, 1, End::GiveBack);
    let broken = unprovoked.handled(1, 1, End::Ack).broken();
    assert_eq!(broken, [Promise::NoNeedlessRepeat]);
}
