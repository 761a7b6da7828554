//! Bringing dead letters back: to their group alone, with care, and with an account of it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use uuid::Uuid;

use super::Subject;
use super::support::{Must as _, Stage, fields, group, new_entry, quick, topic};
use crate::api::{Delivery, SubscribeOptions, Subscription};
use crate::extract::Payload;

use crate::domain::{
    DeadLetter, DeadLetterFilter, EntryId, ErrorKind, Reason, Selection, SkipReason, Sweep,
};
use crate::operate::dead_letters::{PlannedSweep, SweepEnd, SweepProgress, SweepReport};
use crate::operate::plan::Plan;

/// A subscription that fails everything while it is told to.
pub(super) struct Failing {
    pub(super) broken: Arc<AtomicBool>,
    pub(super) received: UnboundedReceiver<(u32, Delivery)>,
    pub(super) subscription: Subscription,
}

pub(super) fn everything() -> DeadLetterFilter {
    DeadLetterFilter::default()
}

impl<S: Subject> Stage<'_, S> {
    /// Subscribes a handler that fails, and sends what it gets once it is mended.
    pub(super) async fn failing(&self, options: SubscribeOptions) -> Failing {
        let broken = Arc::new(AtomicBool::new(true));
        let (sender, received) = mpsc::unbounded_channel();
        let fails = Arc::clone(&broken);
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let fails = fails.load(Ordering::SeqCst);
            if !fails {
                let _ = sender.send((n, delivery));
            }
            async move {
                if fails {
                    Err(format!("on fire, {}", n % 2))
                } else {
                    Ok(())
                }
            }
        };
        let bus = self.container.bus();
        let made = bus.subscribe_with(&self.topic, options, handler);
        Failing {
            broken,
            received,
            subscription: made.await.must("subscribing"),
        }
    }

    /// Publishes so many and waits until all of them are dead.
    pub(super) async fn dead(&self, count: u32) -> Vec<DeadLetter> {
        let before = self.letters().await.len();
        self.publish(0..count).await;
        let all = before + count as usize;
        self.until("the dead letters", async || {
            let letters = self.letters().await;
            (letters.len() == all).then_some(letters)
        })
        .await
    }

    pub(super) async fn sweep(&self, sweep: Sweep) -> SweepReport {
        let dead = self.container.dead_letters();
        let report = dead.sweep(&self.topic, &self.group, sweep, &|_| {}).await;
        report.must("sweeping")
    }
}

/// Redriven messages go to the group that failed them, and their attempts start at one.
pub async fn a_redriven_message_starts_over_in_its_group<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let broken = Arc::new(AtomicBool::new(true));
    let (sender, mut received) = mpsc::unbounded_channel();
    for name in ["failing", "fine"] {
        let (sender, broken) = (sender.clone(), Arc::clone(&broken));
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let fails = name == "failing" && broken.load(Ordering::SeqCst);
            if !fails {
                let _ = sender.send((name, n, delivery.attempt()));
            }
            async move { if fails { Err("on fire") } else { Ok(()) } }
        };
        let bus = stage.container.bus();
        let options = quick(2).with_group(group(name));
        let made = bus.subscribe_with(&stage.topic, options, handler).await;
        let _subscription = made.must("subscribing");
    }
    stage.publish(0..5).await;
    let seen = stage.some(&mut received, 5).await;
    assert!(seen.iter().all(|(name, ..)| *name == "fine"));
    let failing = group("failing");
    assert_eq!(stage.drained_of(&failing).await.dead, 5);
    broken.store(false, Ordering::SeqCst);
    let dead = stage.container.dead_letters();
    let letters = stage.letters_of(&failing).await;
    let ids: Vec<_> = letters.iter().map(|one| one.id).collect();
    let moved = dead.redrive(&stage.topic, &failing, &ids).await;
    assert_eq!(moved.must("redriving").moved, ids);
    let mut seen = stage.some(&mut received, 5).await;
    seen.sort_unstable();
    let expected = (0..5).map(|n| ("failing", n, 1));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert_eq!(stage.drained_of(&failing).await.dead, 0);
    let again = dead.redrive(&stage.topic, &failing, &ids).await;
    assert_eq!(again.must("redriving").missing, ids);
    stage.finish().await;
    assert!(received.try_recv().is_err(), "the other group got nothing");
}

/// A sweep moves the matching dead letters and leaves the rest, as its preview said.
pub async fn a_sweep_moves_the_matching_dead_letters<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let mut failing = stage.failing(quick(1)).await;
    stage.dead(10).await;
    failing.broken.store(false, Ordering::SeqCst);
    let odd = everything().with_error("ON FIRE, 1").must("a filter");
    let sweep = Sweep::redrive(odd).with_operator("ann");
    let dead = stage.container.dead_letters();
    let preview = dead.preview(&stage.topic, &stage.group, &sweep).await;
    let preview = preview.must("previewing");
    assert_eq!(preview.matching, 5);
    assert_eq!(preview.skipped.get(&SkipReason::NotMatching), Some(&5));
    assert_eq!(stage.letters().await.len(), 10, "a preview changes nothing");

    let told = Mutex::new(Vec::new());
    let tell = |progress: SweepProgress| told.lock().must("telling").push(progress);
    let report = dead.sweep(&stage.topic, &stage.group, sweep, &tell).await;
    let report = report.must("sweeping");
    assert_eq!(report.ended, SweepEnd::Done);
    assert_eq!((report.progress.taken, report.progress.skipped), (5, 5));
    assert_eq!(told.lock().must("reading").last(), Some(&report.progress));
    let mut seen: Vec<u32> = Vec::new();
    for (n, delivery) in stage.some(&mut failing.received, 5).await {
        assert_eq!(delivery.attempt(), 1, "attempts start at one");
        seen.push(n);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 3, 5, 7, 9]);
    let operations = dead.journal(&stage.topic, &stage.group).await;
    let operation = operations.must("the journal").pop().must("an operation");
    assert_eq!(operation.id, report.operation);
    assert_eq!(
        (operation.action.as_str(), operation.operator.as_str()),
        ("redrive", "ann")
    );
    assert_eq!(operation.taken, 5);
    let result = operation.result.must("the result");
    assert_eq!(result, "done; 5 taken, 5 skipped, 0 missing");
    stage.finish().await;
}

/// A plan moves the dead letters that its preview showed, and none that died since.
pub async fn a_plan_moves_what_its_preview_showed<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(3).await;
    let dead = stage.container.dead_letters();
    let shown = stage.letters().await;
    let plan = async |sweep: Sweep| {
        let plan = dead.plan(&stage.topic, &stage.group, sweep).await;
        plan.must("planning")
    };
    let run = async |plan: Plan<PlannedSweep>| {
        let report = dead.run(plan.confirm_unasked(), &|_| {}).await;
        report.must("running").progress.taken
    };
    let purge = plan(Sweep::purge(everything())).await;
    let redrive = plan(Sweep::redrive(everything())).await;
    assert_eq!(redrive.preview().watermark, shown.last().map(|one| one.id));
    stage.dead(2).await;
    let until_two = Sweep::redrive(everything()).with_watermark(shown[1].id);
    let until_two = plan(until_two).await;
    assert_eq!(until_two.preview().preview.matching, 2);
    assert_eq!(until_two.preview().watermark, Some(shown[1].id));
    failing.broken.store(false, Ordering::SeqCst);
    assert_eq!(run(until_two).await, 2);
    assert_eq!(run(redrive).await, 1);
    assert_eq!(run(purge).await, 0);
    let left = stage.letters().await;
    assert_eq!(left.len(), 2, "those that died after the previews");
    assert!(left.iter().all(|one| one.id > shown[2].id));
    let beyond = EntryId::new(u64::MAX, 0);
    let all = plan(Sweep::purge(everything()).with_watermark(beyond)).await;
    assert_eq!(all.preview().watermark, left.last().map(|one| one.id));
    stage.finish().await;
}

/// Operators' notes, and the messages of an operation that died again.
pub async fn causes_and_operations_have_notes<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let _failing = stage.failing(quick(1)).await;
    stage.dead(4).await;
    let (dead, topic, group) = (stage.container.dead_letters(), &stage.topic, &stage.group);
    let even = everything().with_error("on fire, 0").must("a filter");
    let sweep = Sweep::redrive(even).with_note("OPS-7: mended");
    let operation = stage.sweep(sweep).await.operation;
    stage
        .until("both to die again", async || {
            (stage.letters().await.len() == 4).then_some(())
        })
        .await;
    let again = everything().with_redriven_by(operation);
    let page = dead.list_newest(topic, group, &again, None, 10).await;
    let page = page.must("listing").items;
    assert_eq!(page.len(), 2);
    assert!(
        page.iter()
            .all(|(_, one)| one.redriven_by == Some(operation))
    );
    let other = everything().with_redriven_by(Uuid::nil());
    let none = dead.list(topic, group, &other, None, 10).await;
    assert_eq!(none.must("listing").items.len(), 0);
    let journal = dead.journal(topic, group).await.must("the journal");
    assert_eq!(journal[0].note, "OPS-7: mended");

    let summary = async || {
        dead.summary(topic, group, 10)
            .await
            .must("a summary")
            .causes
    };
    let cause = summary().await.remove(0).cause.fingerprint;
    let note = async |text: &str| dead.set_note(topic, group, &cause, text, "ann").await;
    note(" the bank is down \n").await.must("a note");
    let shown = summary().await.remove(0).note.must("the note");
    assert_eq!(
        (&*shown.text, &*shown.operator),
        ("the bank is down", "ann")
    );
    assert_eq!(shown.fingerprint, cause);
    let refused = note(&"x".repeat(2_001)).await.map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::Invalid));
    note(" ").await.must("no note");
    assert_eq!(summary().await.remove(0).note, None);
    stage.finish().await;
}

/// A sweep of a time is about those that died in it, and counts no others.
pub async fn a_sweep_of_a_time_range_reads_only_that_range<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    for count in [4, 6, 5] {
        stage.dead(count).await;
        // The three parts die in milliseconds of their own.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let letters = stage.letters().await;
    let time = |at: usize| letters[at].id.time().must("a time");
    let middle = everything().with_since(time(4)).with_until(time(9));
    let sweep = Sweep::purge(middle.with_error("fire, 1").must("a filter"));
    let dead = stage.container.dead_letters();
    let preview = dead.preview(&stage.topic, &stage.group, &sweep).await;
    let preview = preview.must("previewing");
    let told = (
        preview.matching,
        preview.skipped.get(&SkipReason::NotMatching),
    );
    assert_eq!(told, (3, Some(&3)));
    let report = stage.sweep(sweep).await;
    assert_eq!((report.progress.taken, report.progress.skipped), (3, 3));
    let taken =
        |letter: &&DeadLetter| letter.error.ends_with('1') && letters[4..10].contains(letter);
    let left = letters.iter().filter(|letter| !taken(letter)).cloned();
    assert_eq!(stage.letters().await, left.collect::<Vec<_>>());
    drop(failing);
    stage.finish().await;
}

/// What dies while a sweep is under way is left to the next one: it ends though everything that it
/// brings back dies again.
pub async fn a_sweep_ends_when_every_message_dies_again<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(30).await;
    let sweep = Sweep::redrive(everything()).with_rate(200, Duration::ZERO);
    let report = stage.sweep(sweep).await;
    assert_eq!((report.ended, report.progress.taken), (SweepEnd::Done, 30));
    let again = stage
        .until("all of them to die again", async || {
            let letters = stage.letters().await;
            (letters.len() == 30).then_some(letters)
        })
        .await;
    for letter in again {
        assert_eq!(letter.history.redriven, 1);
        assert_eq!(letter.history.redriven_by, Some(report.operation));
        assert_eq!(letter.attempts, 1);
    }
    drop(failing);
    stage.finish().await;
}

/// A sweep stops by itself when too many of the redriven die again.
pub async fn a_sweep_stops_when_too_many_die_again<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(400).await;
    let sweep = Sweep::redrive(everything())
        .with_rate(50, Duration::ZERO)
        .with_failure_limit(0.5);
    let report = stage.sweep(sweep).await;
    assert_eq!(report.ended, SweepEnd::Stopped);
    let SweepProgress {
        taken, died_again, ..
    } = report.progress;
    assert!((20..400).contains(&taken), "{taken}");
    assert!(died_again * 2 > taken, "{died_again} of {taken}");
    stage
        .until("the rest to die again", async || {
            (stage.letters().await.len() == 400).then_some(())
        })
        .await;
    drop(failing);
    stage.finish().await;
}

/// Two sweeps at once neither lose nor double.
pub async fn two_sweeps_share_the_work<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let mut failing = stage.failing(quick(1)).await;
    stage.dead(200).await;
    failing.broken.store(false, Ordering::SeqCst);
    let sweep = || stage.sweep(Sweep::redrive(everything()));
    let (one, two) = tokio::join!(sweep(), sweep());
    let (one, two) = (one.progress, two.progress);
    assert_eq!(one.taken + two.taken, 200);
    assert!(one.taken + one.missing <= 200 && two.taken + two.missing <= 200);
    let came = stage.some(&mut failing.received, 200).await;
    let mut seen: Vec<u32> = came.into_iter().map(|(n, _)| n).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert_eq!(stage.drained().await.dead, 0);
    assert!(failing.received.try_recv().is_err(), "none came twice");
    stage.finish().await;
}

/// A sweep that was cut off has left a true account, and goes on where it was.
pub async fn an_interrupted_sweep_can_be_resumed<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let mut failing = stage.failing(quick(1)).await;
    let letters = stage.dead(40).await;
    failing.broken.store(false, Ordering::SeqCst);
    let dead = stage.container.dead_letters();
    let few = Arc::new(tokio::sync::Notify::new());
    let tell = {
        let few = Arc::clone(&few);
        move |progress: SweepProgress| {
            if progress.taken >= 5 {
                few.notify_one();
            }
        }
    };
    let sweep = Sweep::redrive(everything()).with_rate(20, Duration::ZERO);
    tokio::select! {
        _ = dead.sweep(&stage.topic, &stage.group, sweep, &tell) => panic!("it was not cut off"),
        () = few.notified() => {}
    }
    let operations = dead.journal(&stage.topic, &stage.group).await;
    let operation = operations.must("the journal").pop().must("an operation");
    assert_eq!(operation.result, None);
    let left = stage.letters().await.len() as u64;
    assert_eq!(
        operation.taken + left,
        40,
        "nothing is lost, nothing doubled"
    );
    assert_eq!(operation.until, letters.last().map(|last| last.id));
    let taken = usize::try_from(operation.taken).must("a few");
    stage.some(&mut failing.received, taken).await;
    // One that died since is not part of it.
    failing.broken.store(true, Ordering::SeqCst);
    stage.dead(1).await;
    failing.broken.store(false, Ordering::SeqCst);
    let resumed = dead
        .resume(&stage.topic, &stage.group, operation.id, &|_| {})
        .await;
    assert_eq!(resumed.must("resuming").progress.taken, left);
    assert_eq!(stage.letters().await.len(), 1);
    stage.some(&mut failing.received, 40 - taken).await;
    let again = dead
        .resume(&stage.topic, &stage.group, operation.id, &|_| {})
        .await;
    let error = again.err().must("a refusal");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let unknown = dead
        .resume(&stage.topic, &stage.group, Uuid::nil(), &|_| {})
        .await;
    assert_eq!(unknown.err().must("a refusal").kind(), ErrorKind::NotFound);
    stage.finish().await;
}

/// A sweep that goes on compares what died again with all that it took, also before it was cut off.
pub async fn a_resumed_sweep_skips_what_it_moved_before<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(60).await;
    let dead = stage.container.dead_letters();
    let many = Arc::new(tokio::sync::Notify::new());
    let tell = {
        let many = Arc::clone(&many);
        move |progress: SweepProgress| {
            if progress.taken >= 25 {
                many.notify_one();
            }
        }
    };
    // More than all of them cannot die again: this never stops by itself.
    let sweep = Sweep::redrive(everything())
        .with_rate(40, Duration::ZERO)
        .with_failure_limit(1.0);
    tokio::select! {
        _ = dead.sweep(&stage.topic, &stage.group, sweep, &tell) => panic!("it was not cut off"),
        () = many.notified() => {}
    }
    stage
        .until("the redriven to die again", async || {
            (stage.letters().await.len() == 60).then_some(())
        })
        .await;
    let operations = dead.journal(&stage.topic, &stage.group).await;
    let operation = operations.must("the journal").pop().must("an operation");
    let resumed = dead.resume(&stage.topic, &stage.group, operation.id, &|_| {});
    let resumed = resumed.await.must("resuming");
    assert_eq!(resumed.ended, SweepEnd::Done);
    assert_eq!(resumed.progress.taken + operation.taken, 60);
    drop(failing);
    stage.finish().await;
}

/// What cannot be decoded moves only when it is named, and comes back as it was.
pub async fn undecodable_dead_letters_move_only_by_id<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let mut failing = stage.failing(quick(1)).await;
    stage.dead(1).await;
    failing.broken.store(false, Ordering::SeqCst);
    let flaw = new_entry("json", &b"{"[..]);
    stage.append_entries(std::slice::from_ref(&flaw)).await;
    let two = async || {
        let letters = stage.letters().await;
        (letters.len() == 2).then_some(letters)
    };
    stage.until("the undecodable one", two).await;
    let report = stage.sweep(Sweep::redrive(everything())).await;
    assert_eq!((report.progress.taken, report.progress.skipped), (1, 1));
    stage.next(&mut failing.received).await;
    let named = everything().with_reason(Reason::Undecodable);
    let report = stage.sweep(Sweep::redrive(named)).await;
    assert_eq!(report.progress.taken, 1);
    let letter = stage
        .until("it to die again", async || {
            stage
                .letters()
                .await
                .pop()
                .filter(|one| one.history.redriven == 1)
        })
        .await;
    assert_eq!(letter.fields, fields(flaw));
    let report = stage.sweep(Sweep::purge(everything())).await;
    assert_eq!(report.progress.taken, 1, "a purge removes it");
    stage.finish().await;
}

/// A sweep can publish to another topic, and so to all its groups.
pub async fn dead_letters_can_go_to_another_topic<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    let letters = stage.dead(3).await;
    let other = topic("other");
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery));
        std::future::ready(())
    };
    let bus = stage.container.bus();
    let _subscription = bus.subscribe(&other, handler).await.must("subscribing");
    // Two operators at once: each is published once.
    let publish = || stage.sweep(Sweep::publish(other.clone(), everything()));
    let (one, two) = tokio::join!(publish(), publish());
    assert_eq!(one.progress.taken + two.progress.taken, 3);
    for letter in &letters {
        let (n, delivery) = stage.next(&mut received).await;
        assert_eq!(delivery.attempt(), 1);
        assert_eq!(Some(delivery.envelope().id()), letter.message_id);
        let payload: u32 = letter
            .envelope()
            .must("decoding")
            .payload()
            .must("a number");
        assert_eq!(n, payload);
    }
    stage
        .until("the other topic to be handled", async || {
            let groups = stage.container.topics().groups(&other).await;
            let group = groups.must("looking").pop().must("a group");
            (group.lag + group.in_flight == 0).then_some(())
        })
        .await;
    assert!(received.try_recv().is_err(), "one came twice");
    assert!(stage.letters().await.is_empty());
    drop(failing);
    stage.finish().await;
}

/// A sweep that publishes skips dead letters that cannot be decoded, and publishes the others.
pub async fn undecodable_dead_letters_stay_where_others_are_published<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(1).await;
    let flaw = new_entry("json", &b"{"[..]);
    stage.append_entries(&[flaw]).await;
    let two = async || {
        let letters = stage.letters().await;
        (letters.len() == 2).then_some(letters)
    };
    let letters = stage.until("the undecodable one", two).await;
    let ids: Vec<EntryId> = letters.iter().map(|letter| letter.id).collect();
    let sweep = Sweep::publish(topic("other"), ids);
    let dead = stage.container.dead_letters();
    let preview = dead.preview(&stage.topic, &stage.group, &sweep).await;
    let preview = preview.must("previewing");
    assert_eq!(preview.matching, 1);
    assert_eq!(preview.skipped[&SkipReason::Undecodable], 1);
    let progress = stage.sweep(sweep).await.progress;
    assert_eq!((progress.taken, progress.skipped), (1, 1));
    assert_eq!(progress.missing, 0);
    let left = stage.letters().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].reason, Reason::Undecodable);
    drop(failing);
    stage.finish().await;
}

/// Ids that are asked for and not there are told.
pub async fn missing_ids_are_reported<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    let letters = stage.dead(2).await;
    let ids = vec![letters[0].id, EntryId::default(), letters[1].id];
    let dead = stage.container.dead_letters();
    let preview = dead
        .preview(&stage.topic, &stage.group, &Sweep::purge(ids.clone()))
        .await;
    let preview = preview.must("previewing");
    assert_eq!((preview.matching, preview.missing), (2, 1));
    assert_eq!(
        (preview.oldest, preview.newest),
        (Some(letters[0].id), Some(letters[1].id))
    );
    let report = stage.sweep(Sweep::purge(ids)).await;
    assert_eq!((report.progress.taken, report.progress.missing), (2, 1));
    let bad = Sweep::purge(Selection::Ids(Vec::new())).with_failure_limit(0.1);
    let refused = dead.sweep(&stage.topic, &stage.group, bad, &|_| {}).await;
    assert_eq!(refused.err().must("a refusal").kind(), ErrorKind::Invalid);
    drop(failing);
    stage.finish().await;
}
