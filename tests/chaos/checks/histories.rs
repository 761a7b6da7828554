//! Short histories, written by hand: one that keeps each promise, and one that just breaks it.

use crate::checker::{Promise, check};
use crate::history::{Claimed, End, Event, Fate, Op, Told};
use crate::story::{SHARED, Story, rules};

#[test]
fn every_published_message_is_handled_or_dead() {
    let mut story = Story::new();
    story.published(1, Fate::Ok).handled(1, 1, End::Ack);
    story.published(2, Fate::Ok).handled(2, 1, End::Reject);
    story.dead_as("rejected", Some(2), "2-0", 1);
    story.published(3, Fate::No).published(4, Fate::Unknown);
    assert_eq!(story.broken(), []);

    let mut unseen = Story::new();
    assert_eq!(
        unseen.published(1, Fate::Ok).broken(),
        [Promise::NothingLost]
    );
    let mut begun = Story::new();
    begun.published(1, Fate::Ok).begun("orders", 1, "1-0", 1);
    assert_eq!(begun.broken(), [Promise::NothingLost]);
}

#[test]
fn a_message_published_before_a_data_loss_does_not_count_as_lost() {
    let mut story = Story::new();
    story
        .published(1, Fate::Ok)
        .fault("flushall", true)
        .healed("flushall");
    assert_eq!(story.broken(), []);
    assert_eq!(check(&story.0, &rules()).counts.forgotten, 1);
    story.published(2, Fate::Ok);
    assert_eq!(story.broken(), [Promise::NothingLost]);
}

#[test]
fn a_failover_loses_at_level_accepted_only() {
    let published = |n| {
        let mut story = Story::new();
        story.published(n, Fate::Ok);
        story
    };
    let accepted = |mut story: Story| {
        story.fault("a failover", false).healed("a failover");
        let broken = story.broken();
        (broken, check(&story.0, &rules()).counts.lost_accepted)
    };
    // In these stories the publishers of odd numbers asked for no replica.
    assert_eq!(accepted(published(1)), (vec![], 1));
    assert_eq!(accepted(published(2)), (vec![Promise::NothingLost], 0));
    // Without a failover nothing may be lost.
    assert_eq!(published(1).broken(), [Promise::NothingLost]);
    let mut later = Story::new();
    later.fault("a failover", false).healed("a failover");
    later.published(1, Fate::Ok);
    assert_eq!(later.broken(), [Promise::NothingLost]);
}

#[test]
fn a_failover_can_take_a_delivery_back_and_disturb_the_order() {
    let disturbed = |fault: &str| {
        let mut story = Story::new();
        story.published(1, Fate::Ok).handled(1, 1, End::Reject);
        for n in [2, 3] {
            let topic = "ordered".to_owned();
            story.add(Event::Publish { topic, n });
        }
        story.begun("ordered", 2, "10-0", 1);
        story.fault(fault, false).healed(fault);
        story.begun("ordered", 3, "9-0", 1);
        story.dead_as("rejected", Some(1), "1-0", 1);
        story.dead_as("rejected", Some(1), "2-0", 1);
        story
    };
    let broken = [Promise::Attempts, Promise::Order];
    assert_eq!(disturbed("a cut").broken(), broken);
    assert_eq!(disturbed("a failover").broken(), []);
}

#[test]
fn a_failover_can_take_a_redrive_a_register_and_a_claim_back() {
    let twice = |fault: &str| {
        let mut story = Story::new();
        story
            .published(1, Fate::Ok)
            .handled(1, 1, End::Reject)
            .listed(1);
        story.redrive(1, 1, Some(true));
        story.fault(fault, false).healed(fault);
        story.redrive(2, 1, Some(true)).handled(1, 1, End::Ack);
        let (key, token) = ("once".to_owned(), 7);
        for token in [token, token + 1] {
            let (key, claimed) = (key.clone(), Claimed::Mine);
            story.add(Event::Completed {
                key,
                token,
                claimed,
            });
        }
        for (call, told) in [(1, Told::Set), (2, Told::Got(None))] {
            let key = "register".to_owned();
            let op = [Op::Get, Op::Set(3)][usize::from(call == 1)];
            story.add(Event::Asked { key, call, op });
            let key = "register".to_owned();
            story.add(Event::Told { key, call, told });
        }
        story
    };
    let broken = [
        Promise::Once,
        Promise::RedriveConserves,
        Promise::Linearizable,
    ];
    assert_eq!(twice("a cut").broken(), broken);
    // The register and the claim of this story came after the failover.
    let after = [Promise::Once, Promise::Linearizable];
    assert_eq!(twice("a failover").broken(), after);
    let mut later = twice("a cut");
    later.fault("a failover", false).healed("a failover");
    assert_eq!(later.broken(), []);
}

#[test]
fn an_unpublished_message_is_not_seen() {
    for story in [
        Story::new().published(1, Fate::No).handled(1, 1, End::Ack),
        Story::new().handled(1, 1, End::Ack),
    ] {
        assert_eq!(story.broken(), [Promise::NothingInvented]);
    }
    let mut unknown = Story::new();
    unknown.published(1, Fate::Unknown).handled(1, 1, End::Ack);
    assert_eq!(unknown.broken(), []);
}

#[test]
fn a_message_is_stored_once_per_topic() {
    let mut story = Story::new();
    story.published(1, Fate::Ok).begun("orders", 1, "1-0", 1);
    story.fault("a cut", false).healed("a cut");
    story.begun("orders", 1, "2-0", 2).ended(1, 2, End::Ack);
    assert_eq!(story.broken(), [Promise::OneEntry]);
}

#[test]
fn a_message_is_redelivered_only_for_a_reason() {
    let mut failed = Story::new();
    failed.published(1, Fate::Ok).handled(1, 1, End::Fail);
    failed.handled(1, 2, End::Snooze).handled(1, 2, End::Ack);
    assert_eq!(failed.broken(), []);
    failed.handled(1, 2, End::Ack);
    assert_eq!(failed.broken(), [Promise::NoNeedlessRepeat]);
    assert_eq!(check(&failed.0, &rules()).counts.duplicates, 1);

    let mut crashed = Story::new();
    crashed.published(1, Fate::Ok).begun("orders", 1, "1-0", 1);
    crashed.fault("a kill", false).healed("a kill");
    assert_eq!(crashed.handled(1, 2, End::Ack).broken(), []);
    let mut unprovoked = Story::new();
    unprovoked
        .published(1, Fate::Ok)
        .begun("orders", 1, "1-0", 1);
    let broken = unprovoked.handled(1, 2, End::Ack).broken();
    assert_eq!(broken, [Promise::NoNeedlessRepeat]);
}

#[test]
fn attempts_are_bounded_and_a_message_is_dead_lettered_once() {
    let mut story = Story::new();
    story.published(1, Fate::Ok);
    for attempt in 1..4 {
        story.handled(1, attempt, End::Fail);
    }
    assert_eq!(story.dead_lettered(Some(1), "1-0", 3).broken(), []);
    story.dead_lettered(Some(1), "2-0", 3);
    assert_eq!(story.broken(), [Promise::Attempts]);

    let mut fourth = Story::new();
    fourth.published(1, Fate::Ok);
    for attempt in 1..4 {
        fourth.handled(1, attempt, End::Fail);
    }
    fourth.handled(1, 4, End::Ack);
    assert_eq!(fourth.broken(), [Promise::Attempts]);
}

#[test]
fn an_undecodable_entry_is_dead_lettered_once() {
    let malformed = || {
        let mut story = Story::new();
        let (topic, entry) = ("orders".to_owned(), "9-9".to_owned());
        story.add(Event::Malformed { topic, entry });
        story
    };
    assert_eq!(malformed().broken(), [Promise::NothingLost]);
    assert_eq!(malformed().dead_lettered(None, "1-0", 1).broken(), []);
    let mut twice = malformed();
    twice
        .dead_lettered(None, "1-0", 1)
        .dead_lettered(None, "2-0", 1);
    assert_eq!(twice.broken(), [Promise::Attempts]);
}

#[test]
fn a_redrive_moves_a_record_once() {
    let dead = || {
        let mut story = Story::new();
        story
            .published(1, Fate::Ok)
            .handled(1, 1, End::Reject)
            .listed(1);
        story
    };
    let mut sound = dead();
    sound.redrive(1, 1, Some(true)).redrive(2, 1, Some(false));
    assert_eq!(sound.handled(1, 1, End::Ack).broken(), []);
    let mut unknown = dead();
    unknown.redrive(1, 1, None).handled(1, 1, End::Ack);
    assert_eq!(unknown.broken(), []);

    let mut twice = dead();
    twice.redrive(1, 1, Some(true)).redrive(2, 1, Some(true));
    assert_eq!(
        twice.handled(1, 1, End::Ack).broken(),
        [Promise::RedriveConserves]
    );
    let mut stays = dead();
    stays
        .redrive(1, 1, Some(true))
        .dead_lettered(Some(1), "1-0", 1);
    assert_eq!(stays.broken(), [Promise::RedriveConserves]);
    let vanished = dead().broken();
    assert_eq!(vanished, [Promise::NothingLost, Promise::RedriveConserves]);
}

#[test]
fn a_flush_during_a_probe_is_not_a_loss() {
    let looked = |since| {
        let mut story = Story::new();
        story
            .fault("flush", true)
            // Of something else, and before the flush has happened.
            .healed("a kill")
            .healed("flush")
            .listed_since(since, None);
        story.broken()
    };
    let healed = 400;
    assert_eq!(looked(healed), []);
    assert_eq!(looked(healed + 1), [Promise::RedriveConserves]);
}

#[test]
fn first_deliveries_come_in_order() {
    let mut story = Story::new();
    for n in [1, 2, 3, 4] {
        let topic = "ordered".to_owned();
        story.add(Event::Publish { topic, n });
    }
    story
        .begun("ordered", 1, "9-0", 1)
        .begun("ordered", 2, "10-0", 1);
    // Not a first delivery.
    story
        .fault("a kill", false)
        .healed("a kill")
        .begun("ordered", 1, "9-0", 2);
    assert_eq!(story.broken(), []);
    // Partitions have no order among each other.
    story.begun("ordered", 3, "2/9-5", 1);
    assert_eq!(story.broken(), []);
    story.begun("ordered", 4, "2/9-4", 1);
    assert_eq!(story.broken(), [Promise::Order]);
}

#[test]
fn nothing_unsettled_is_trimmed() {
    let trimmed = |missing| {
        let mut story = Story::new();
        let topic = "orders".to_owned();
        story.add(Event::Trimmed { topic, missing });
        story.broken()
    };
    assert_eq!(trimmed(0), []);
    assert_eq!(trimmed(1), [Promise::TrimsSettledOnly]);
}

#[test]
fn registers_are_linearizable() {
    let swaps = |second| {
        let mut story = Story::new();
        for (call, new, told) in [(1, 7, true), (2, 8, second)] {
            let key = "register".to_owned();
            let op = Op::CasResult {
                expected: None,
                new,
            };
            story.add(Event::Asked {
                key: key.clone(),
                call,
                op,
            });
            let told = Told::Swapped(told);
            story.add(Event::Told { key, call, told });
        }
        story.broken()
    };
    assert_eq!(swaps(false), []);
    assert_eq!(swaps(true), [Promise::Linearizable]);
}

#[test]
fn a_claim_is_completed_once_and_by_its_last_owner() {
    let story = |events: &[(&str, u64, Claimed)]| {
        let mut story = Story::new();
        for (what, token, claimed) in events {
            let (key, token, claimed) = ("once".to_owned(), *token, *claimed);
            story.add(match *what {
                "claim" => Event::Claim {
                    key,
                    token,
                    claimed,
                },
                "send" => Event::Complete { key, token },
                _ => Event::Completed {
                    key,
                    token,
                    claimed,
                },
            });
        }
        story.broken()
    };
    let (one, two) = (Claimed::Mine, Claimed::Busy);
    let first = [("claim", 1, one), ("send", 1, one), ("completed", 1, one)];
    assert_eq!(story(&first), []);
    let fenced = [
        ("claim", 1, one),
        ("claim", 2, one),
        ("send", 1, one),
        ("completed", 1, two),
        ("send", 2, one),
        ("completed", 2, one),
        ("claim", 3, Claimed::Done(2)),
    ];
    assert_eq!(story(&fenced), []);
    let mut superseded = fenced[..4].to_vec();
    superseded[3].2 = one;
    assert_eq!(story(&superseded), [Promise::Once]);
    let mut another = fenced;
    another[6].2 = Claimed::Done(1);
    assert_eq!(story(&another), [Promise::Once]);
}

#[test]
fn everything_drains_in_time() {
    let undrained = check(&Story::new().0, &rules());
    assert_eq!(undrained.broken(), [Promise::Drains]);
    let late = check(&Story::new().drained(1001).0, &rules());
    assert_eq!(late.broken(), [Promise::Drains]);
}

/// A stage at the end, which has passed these messages on.
fn stage(count: u64, shared: u64, passed: &[u64]) -> Event {
    Event::Stage {
        stage: "placed".to_owned(),
        count,
        sum: passed.iter().sum(),
        shared,
        passed: passed.to_vec(),
    }
}

#[test]
fn a_stage_counts_each_message_once_and_passes_it_on_once() {
    let entered = || {
        let mut story = Story::new();
        for n in [3, SHARED, 5] {
            story.add(Event::Entered { n });
        }
        story
    };
    let exact = stage(3, 1, &[5, 3, SHARED]);
    assert_eq!(entered().add(exact).broken(), []);
    for wrong in [
        // Counted and passed on twice, counted twice, passed on twice.
        stage(4, 1, &[3, SHARED, 5, 5]),
        stage(4, 1, &[3, SHARED, 5]),
        stage(3, 1, &[3, SHARED, 5, 5]),
        // One is missing; one never entered.
        stage(2, 1, &[3, SHARED]),
        stage(4, 1, &[3, SHARED, 5, 6]),
        // A replacement was lost.
        stage(3, 0, &[3, SHARED, 5]),
    ] {
        let what = format!("{wrong:?}");
        assert_eq!(entered().add(wrong).broken(), [Promise::Exact], "{what}");
    }
    assert_eq!(
        entered().broken(),
        [Promise::Exact],
        "no stage was examined"
    );
}

#[test]
fn after_a_data_loss_the_counters_of_a_stage_agree_with_its_messages() {
    let lossy = || {
        let mut story = Story::new();
        story.add(Event::Entered { n: 3 });
        story.fault("a power cut", true).healed("a power cut");
        story.add(Event::Entered { n: 5 });
        story
    };
    let mut story = lossy();
    story.add(stage(1, 0, &[5]));
    assert_eq!(story.broken(), []);
    assert_eq!(check(&story.0, &rules()).counts.forgotten, 1);
    assert_eq!(lossy().add(stage(2, 0, &[3, 5])).broken(), []);
    for wrong in [
        stage(1, 0, &[3]),
        stage(2, 0, &[5]),
        stage(1, 0, &[3, 5]),
        stage(3, 0, &[3, 3, 5]),
    ] {
        let what = format!("{wrong:?}");
        assert_eq!(lossy().add(wrong).broken(), [Promise::Exact], "{what}");
    }
}
