//! Entries of other programs: read by a service's readers, retried, dead-lettered and redriven.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::Subject;
use super::support::{Must as _, Stage, fields, new_entry, through_the_store};
use crate::api::Delivery;
use crate::container::Container;
use crate::domain::{DeadLetter, Envelope, Outcome, Reason, Selection, Sweep};
use crate::foreign::ForeignEntry;
use crate::store::NewEntry;

const RECORD: &str = r#"{"cents":1250}"#;

/// An entry as another program writes it.
fn record() -> NewEntry {
    new_entry("record", RECORD)
}

fn read(entry: &ForeignEntry<'_>) -> Option<Envelope> {
    entry.envelope("record", entry.text("record")?).ok()
}

/// A container on the subject's store, with a reader.
async fn reading<S: Subject>(
    stage: &Stage<'_, S>,
    read: impl Fn(&ForeignEntry<'_>) -> Option<Envelope> + Send + Sync + 'static,
) -> Container {
    let builder = Container::builder().with_store(Arc::clone(&stage.store));
    let builder = builder.with_service("billing").with_foreign(read);
    builder.connect().await.must("connecting")
}

/// Handles the topic's messages: fails as many as are told, and sends the others.
async fn handle<S: Subject>(
    stage: &Stage<'_, S>,
    container: &Container,
    failures: u32,
) -> UnboundedReceiver<Delivery> {
    let (sender, received) = mpsc::unbounded_channel();
    let left = Arc::new(AtomicU32::new(failures));
    let handler = move |delivery: Delivery| {
        let less = |left: u32| left.checked_sub(1);
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        let _ = sender.send(delivery);
        std::future::ready(match fails {
            Ok(_) => Outcome::retry("printer jammed"),
            Err(_) => Outcome::Ack,
        })
    };
    let bus = container.bus();
    let made = bus.subscribe_with(&stage.topic, through_the_store(2), handler);
    made.await.must("subscribing");
    received
}

async fn one_letter<S: Subject>(stage: &Stage<'_, S>) -> DeadLetter {
    let letter = stage.until("a dead letter", async || stage.letters().await.pop());
    letter.await
}

async fn redrive<S: Subject>(stage: &Stage<'_, S>, letter: &DeadLetter) {
    let dead = stage.container.dead_letters();
    let sweep = Sweep::redrive(Selection::Ids(vec![letter.id]));
    let swept = dead.sweep(&stage.topic, &stage.group, sweep, &|_| {});
    swept.await.must("redriving");
}

/// A foreign entry is handled, and a retry has the same id and needs no reader.
pub async fn a_foreign_entry_is_retried_with_its_id<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append_entries(&[record()]).await;
    let container = reading(&stage, read).await;
    let mut received = handle(&stage, &container, 1).await;
    let seen = stage.some(&mut received, 2).await;
    let ids: Vec<_> = seen.iter().map(|one| one.envelope().id()).collect();
    assert_eq!(ids[0], ids[1]);
    let attempts: Vec<u32> = seen.iter().map(Delivery::attempt).collect();
    assert_eq!(attempts, [1, 2]);
    for one in &seen {
        assert_eq!(one.envelope().message_type(), "record");
        assert_eq!(one.envelope().payload::<String>().must("the text"), RECORD);
    }
    stage.drained().await;
    stage.end(&container).await;
}

/// A dead letter of a foreign entry has its envelope and the original, and a service without the
/// reader handles it after a redrive.
pub async fn a_dead_foreign_entry_can_be_redriven_without_its_reader<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append_entries(&[record()]).await;
    let container = reading(&stage, read).await;
    let mut received = handle(&stage, &container, 2).await;
    let seen = stage.some(&mut received, 2).await;
    let letter = one_letter(&stage).await;
    stage.end(&container).await;
    assert_eq!(letter.reason, Reason::Exhausted);
    assert_eq!(letter.fields[1..], fields(record()));
    let envelope = letter.envelope().must("the envelope");
    assert_eq!(envelope.id(), seen[0].envelope().id());
    redrive(&stage, &letter).await;
    let mut received = handle(&stage, &stage.container, 0).await;
    let again = stage.next(&mut received).await;
    assert_eq!(again.envelope().id(), envelope.id());
    assert_eq!(again.attempt(), 1);
    stage.drained().await;
    stage.finish().await;
}

/// A reader that panics, or that does not know an entry, fails that entry only. The original is in
/// the dead letters, and a service with a better reader handles it after a redrive.
pub async fn a_bad_reader_costs_its_own_entry_only<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let other = new_entry("other", "1");
    stage
        .append_entries(&[record(), other.clone(), super::support::entry(7)])
        .await;
    let panics = |entry: &ForeignEntry<'_>| -> Option<Envelope> {
        entry.text("record").map(|_| panic!("no cents"))
    };
    let container = reading(&stage, panics).await;
    let mut received = handle(&stage, &container, 0).await;
    let native = stage.next(&mut received).await;
    assert_eq!(native.envelope().payload::<u32>().must("the number"), 7);
    let two = stage.until("two dead letters", async || {
        Some(stage.letters().await).filter(|letters| letters.len() == 2)
    });
    let mut letters = two.await;
    stage.end(&container).await;
    letters.sort_by_key(|letter| letter.history.origin);
    assert!(
        letters[0].error.contains("panicked: no cents"),
        "{}",
        letters[0].error
    );
    assert!(
        letters[1].error.starts_with("no field named"),
        "{}",
        letters[1].error
    );
    for (letter, original) in letters.iter().zip([record(), other]) {
        assert_eq!(letter.reason, Reason::Undecodable);
        assert_eq!(letter.fields, fields(original));
    }
    let container = reading(&stage, read).await;
    redrive(&stage, &letters[0]).await;
    let mut received = handle(&stage, &container, 0).await;
    let again = stage.next(&mut received).await;
    assert_eq!(again.envelope().message_type(), "record");
    stage.drained().await;
    stage.end(&container).await;
}

/// Two groups see one id, and so does an operator who reads the log.
pub async fn every_group_sees_one_id_of_a_foreign_entry<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append_entries(&[record()]).await;
    let container = reading(&stage, |_: &ForeignEntry<'_>| {
        Envelope::new("fresh", &1).ok()
    })
    .await;
    let mut ids = Vec::new();
    for name in ["billing", "shipping"] {
        let (sender, mut received) = mpsc::unbounded_channel();
        let handler = move |delivery: Delivery| {
            let _ = sender.send(delivery.envelope().id());
            std::future::ready(())
        };
        let options = through_the_store(1).with_group(super::support::group(name));
        let bus = container.bus();
        let made = bus.subscribe_with(&stage.topic, options, handler);
        made.await.must("subscribing");
        ids.push(stage.next(&mut received).await);
    }
    assert_eq!(ids[0], ids[1]);
    stage.end(&container).await;
    stage.append_entries(&[record()]).await;
    let entries = container.topics().latest(&stage.topic, 1).await;
    let entry = entries.must("reading").pop().must("the entry");
    assert_eq!(entry.envelope.must("the envelope").message_type(), "fresh");
}
