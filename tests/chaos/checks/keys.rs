//! Short histories about the keys of an owned group, written by hand. Messages with the same last digit have
//! the same key.

use crate::checker::{Promise, Rules, check};
use crate::history::{End, Event, Fate};
use crate::story::{Story, rules};

/// An event of a story.
#[derive(Clone, Copy)]
enum Is {
    /// A message, its attempt, and the token of the owner that begins it.
    Begun(u64, u32, u64),
    /// The last call of the message by this owner returns.
    Ended(u64, End, u64),
    /// The two above, with an acknowledgement.
    Done(u64, u32, u64),
    /// A fault begins and ends.
    Over(&'static str),
    Fault(&'static str),
    Healed(&'static str),
}

use Is::{Begun, Done, Ended, Fault, Healed, Over};

/// The process that got a token. Tokens 5 and 8 went to the same one.
fn process(token: u64) -> String {
    (token % 3).to_string()
}

fn begin(story: &mut Story, entry: &str, (n, attempt, token): (u64, u32, u64)) {
    story.add(Event::Begun {
        topic: "orders".to_owned(),
        group: "billing".to_owned(),
        n,
        entry: entry.to_owned(),
        consumer: process(token),
        attempt,
        token: Some(token),
    });
}

fn end(story: &mut Story, n: u64, end: End, token: u64) {
    story.add(Event::Returned {
        topic: "orders".to_owned(),
        group: "billing".to_owned(),
        n,
        consumer: process(token),
        attempt: 0,
        end,
    });
}

fn add(story: &mut Story, events: &[Is]) {
    for event in events {
        match *event {
            Begun(n, attempt, token) => begin(story, &format!("{n}-0"), (n, attempt, token)),
            Ended(n, as_it, token) => end(story, n, as_it, token),
            Done(n, attempt, token) => {
                begin(story, &format!("{n}-0"), (n, attempt, token));
                end(story, n, End::Ack, token);
            }
            Over(name) => {
                story.fault(name, false).healed(name);
            }
            Fault(name) => {
                story.fault(name, false);
            }
            Healed(name) => {
                story.healed(name);
            }
        }
    }
}

/// A story in which the messages were published whose calls it has.
fn story(events: &[Is]) -> Story {
    let mut story = Story::owned();
    let mut numbers: Vec<u64> = events.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for n in numbers {
        story.published(n, Fate::Ok);
    }
    add(&mut story, events);
    story
}

fn number(event: &Is) -> Option<u64> {
    match event {
        Begun(n, ..) | Done(n, ..) => Some(*n),
        _ => None,
    }
}

fn broken(events: &[Is]) -> Vec<Promise> {
    story(events).broken()
}

#[test]
fn an_owner_has_one_message_of_a_key_under_way() {
    let ends = [Ended(1, End::Ack, 5), Ended(11, End::Ack, 5)];
    assert_eq!(broken(&[Done(1, 1, 5), Done(11, 1, 5)]), []);
    let beside = [Begun(1, 1, 5), Begun(11, 1, 5), ends[0], ends[1]];
    assert_eq!(broken(&beside), [Promise::OneOfAKey]);
    // No fault excuses it.
    let fault = [beside[0], Over("a kill"), beside[1], ends[0], ends[1]];
    assert_eq!(broken(&fault), [Promise::OneOfAKey]);
    // Nor under a token that the same process got later.
    let later = [beside[0], Over("a freeze"), Done(11, 1, 8), ends[0]];
    assert_eq!(broken(&later), [Promise::OneOfAKey]);
    // The key is another one.
    let other = [Begun(2, 1, 5), Done(1, 1, 5), Ended(2, End::Ack, 5)];
    assert_eq!(broken(&other), []);
}

#[test]
fn the_next_owner_begins_beside_a_handler_only_after_a_fault() {
    let taken_over = |fault: Option<&'static str>| {
        let mut events = vec![Begun(1, 1, 5)];
        events.extend(fault.map(Over));
        events.extend([Done(1, 2, 6), Ended(1, End::Ack, 5)]);
        broken(&events)
    };
    assert_eq!(taken_over(Some("a kill")), []);
    assert_eq!(taken_over(Some("a failover")), []);
    let without = [Promise::NoNeedlessRepeat, Promise::OneOfAKey];
    assert_eq!(taken_over(None), without);
    // A shutdown waits for its handlers, or ends them.
    assert_eq!(taken_over(Some("a restart")), [Promise::OneOfAKey]);
    let ended = [Begun(1, 1, 5), Over("a restart"), Done(1, 1, 6)];
    assert_eq!(broken(&ended), []);
}

#[test]
fn no_former_owner_begins_a_message() {
    let late = |fault: Option<&'static str>| {
        let mut events = vec![Done(1, 1, 5), Done(11, 1, 6)];
        events.extend(fault.map(Over));
        // The owner goes on where it is.
        events.extend([Done(31, 1, 5), Done(21, 1, 6)]);
        broken(&events)
    };
    assert_eq!(late(None), [Promise::OneOfAKey]);
    assert_eq!(late(Some("a freeze")), []);
}

#[test]
fn the_messages_of_a_key_begin_in_their_order() {
    let backward = [Done(11, 1, 5), Done(1, 1, 5)];
    assert_eq!(broken(&backward), [Promise::KeyOrder]);
    for fault in ["a kill", "a restart"] {
        let events = [Done(11, 1, 5), Over(fault), Done(1, 1, 6)];
        assert_eq!(broken(&events), [Promise::KeyOrder]);
    }
    assert_eq!(broken(&[Done(11, 1, 5), Done(2, 1, 5)]), [], "another key");
    // Each partition has an order of its own.
    let mut apart = Story::owned();
    for (n, entry) in [(11, "1/11-0"), (1, "2/1-0")] {
        apart.published(n, Fate::Ok);
        begin(&mut apart, entry, (n, 1, 5));
        end(&mut apart, n, End::Ack, 5);
    }
    assert_eq!(apart.broken(), []);
}

#[test]
fn a_message_that_failed_or_was_snoozed_holds_its_key_back() {
    for (how, next) in [(End::Fail, 2), (End::Snooze, 1)] {
        let first = [Begun(1, 1, 5), Ended(1, how, 5)];
        let (again, later) = (Done(1, next, 5), Done(11, 1, 5));
        assert_eq!(broken(&[first[0], first[1], again, later]), []);
        let passed = [first[0], first[1], later, again];
        assert_eq!(broken(&passed), [Promise::KeyOrder], "{how:?}");
        // The next owner learns of it.
        let next_owner = [first[0], first[1], Over("a kill"), Done(11, 1, 6)];
        let events = [&next_owner[..], &[Done(1, next, 6)]].concat();
        assert_eq!(broken(&events), [Promise::KeyOrder], "{how:?}");
    }
}

#[test]
fn a_dead_letter_lets_its_key_go_on_and_comes_back_behind() {
    let mut dead = story(&[Begun(1, 1, 5), Ended(1, End::Reject, 5), Done(11, 1, 5)]);
    dead.published(21, Fate::Ok).listed(1);
    dead.redrive(1, 1, Some(true));
    add(&mut dead, &[Done(1, 1, 5), Done(21, 1, 5)]);
    assert_eq!(dead.broken(), []);
    let beside = [Begun(1, 1, 5), Done(21, 1, 5), Ended(1, End::Ack, 5)];
    let mut dead = story(&[Begun(1, 1, 5), Ended(1, End::Reject, 5), Done(11, 1, 5)]);
    dead.published(21, Fate::Ok).listed(1);
    dead.redrive(1, 1, Some(true));
    add(&mut dead, &beside);
    assert_eq!(dead.broken(), [Promise::OneOfAKey]);
}

#[test]
fn after_a_failover_the_next_owner_goes_back_and_keeps_the_order_from_there() {
    let before = [Done(1, 1, 5), Done(11, 1, 5), Fault("a failover")];
    let then = |after: &[Is]| broken(&[&before, after].concat());
    let (back, healed) = (Done(1, 1, 6), Healed("a failover"));
    assert_eq!(then(&[back, healed, Done(11, 1, 6)]), []);
    let jumps = [back, healed, Done(21, 1, 6), Done(11, 1, 6)];
    // The failover explains that it comes again, and not that it comes late.
    assert_eq!(then(&jumps), [Promise::KeyOrder]);
}

#[test]
fn an_attempt_under_way_counts_when_its_owner_ends() {
    let again = |fault, attempt| broken(&[Begun(1, 1, 5), Over(fault), Done(1, attempt, 6)]);
    assert_eq!(again("a kill", 2), []);
    assert_eq!(again("a kill", 1), [Promise::Attempts]);
    // A shutdown counts none, and a failover forgets what it was told.
    assert_eq!(again("a restart", 1), []);
    assert_eq!(again("a failover", 1), []);
    // A process that lost the message counts the crash of another, and not its own attempt.
    let late = [Begun(1, 1, 5), Over("a freeze"), Begun(1, 2, 6)];
    let lost = [&late[..], &[Ended(1, End::GiveBack, 5), Over("a kill")]].concat();
    let back = |token| broken(&[&lost[..], &[Done(1, 2, token)]].concat());
    assert_eq!(back(8), []);
    assert_eq!(back(7), [Promise::Attempts]);
    // It had ended, and only its acknowledgement was lost.
    let ended = [Done(1, 1, 5), Over("a kill"), Done(1, 1, 6)];
    assert_eq!(broken(&ended), []);
}

#[test]
fn an_owner_knows_what_it_has_handled() {
    let again = |token| broken(&[Done(1, 1, 5), Over("a cut"), Done(1, 2, token)]);
    assert_eq!(again(6), []);
    assert_eq!(again(5), [Promise::NoNeedlessRepeat]);
}

#[test]
fn an_owned_group_marks_every_attempt_after_a_failure() {
    let first = [Begun(1, 1, 5), Ended(1, End::Fail, 5), Over("a kill")];
    let mut skips = story(&[&first[..], &[Done(1, 3, 6)]].concat());
    assert_eq!(skips.broken(), []);
    let counts = check(&skips.0, &rules()).counts;
    assert_eq!((counts.unmarked, counts.cut_short), (0, 1));
    assert_eq!((counts.turns, counts.owners), (2, 2));
    // Each fault cuts one attempt short.
    let rules = Rules {
        max_attempts: |_| 4,
        ..rules()
    };
    let later = |faults: &[Is]| {
        let story = story(&[&first[..], faults, &[Done(1, 4, 7)]].concat());
        check(&story.0, &rules).broken()
    };
    assert!(later(&[]).contains(&Promise::Begun));
    assert!(!later(&[Over("a freeze")]).contains(&Promise::Begun));
}
