//! Sweeps that publish dead letters to another topic.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};

use redstart::dead_letters::{DeadLetterFilter, Sweep, SweepReport};
use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::middleware::PublishHook;
use redstart::{Container, Envelope, Error, ErrorKind, Outcome, Topic};

use crate::{BILLING, ORDERS, PATIENCE};

const ARCHIVE: Topic = Topic::from_static("archive");

/// Refuses messages to the archive by their keys, with errors of a kind.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<HashMap<String, ErrorKind>>>);

impl PublishHook for Gate {
    fn before(
        &self,
        topic: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let refused = self.0.lock().unwrap();
        match refused.get(envelope.key().unwrap_or_default()) {
            Some(kind) if *topic == ARCHIVE => Err(Error::new(*kind, "gate", "shut").into()),
            _ => Ok(()),
        }
    }
}

/// A container with dead letters of these keys, and its gate.
async fn with_dead_letters(keys: &[&str]) -> (Container, Gate) {
    let gate = Gate::default();
    let builder = Container::builder()
        .with_memory(MemoryStore::new())
        .with_service(BILLING.as_str())
        .with_publish_hook(gate.clone());
    let container = builder.connect().await.unwrap();
    let rejects = async |_: Payload<u32>| Outcome::dead_letter("never");
    let _subscription = container.bus().subscribe(&ORDERS, rejects).await.unwrap();
    for key in keys {
        let message = Envelope::new("n", &1).unwrap().with_key(*key);
        container.bus().publish(&ORDERS, &message).await.unwrap();
    }
    let died = async {
        while left(&container).await.len() < keys.len() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let died = tokio::time::timeout(PATIENCE, died).await;
    died.expect("the messages die");
    (container, gate)
}

/// The keys of the dead letters.
async fn left(container: &Container) -> Vec<String> {
    let (dead, all) = (container.dead_letters(), DeadLetterFilter::default());
    let page = dead.list(&ORDERS, &BILLING, &all, None, 100).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|(id, _)| *id).collect();
    let letters = dead.get(&ORDERS, &BILLING, &ids).await.unwrap();
    let key = |envelope: Envelope| envelope.key().unwrap_or_default().to_owned();
    let keys = letters.iter().map(|one| key(one.envelope().unwrap()));
    keys.collect()
}

/// The keys of the archive.
async fn archived(container: &Container) -> Vec<String> {
    let entries = container.topics().entries_after(&ARCHIVE, None, 100).await;
    let entries = entries.unwrap_or_default().into_iter();
    let key = |envelope: Envelope| envelope.key().unwrap_or_default().to_owned();
    entries.map(|entry| key(entry.envelope.unwrap())).collect()
}

async fn sweep(container: &Container) -> Result<SweepReport, Error> {
    let (dead, sweep) = (
        container.dead_letters(),
        Sweep::publish(ARCHIVE, DeadLetterFilter::default()),
    );
    dead.sweep(&ORDERS, &BILLING, sweep, &|_| {}).await
}

#[tokio::test]
async fn a_sweep_leaves_a_message_that_can_never_be_published_and_goes_on() {
    let (container, gate) = with_dead_letters(&["1", "2", "3"]).await;
    gate.0
        .lock()
        .unwrap()
        .insert("2".to_owned(), ErrorKind::TooLarge);
    let report = sweep(&container).await.unwrap();
    assert_eq!((report.progress.taken, report.progress.skipped), (2, 1));
    assert_eq!(archived(&container).await, ["1", "3"]);
    assert_eq!(left(&container).await, ["2"]);
    let dead = container.dead_letters();
    let entry = dead.journal(&ORDERS, &BILLING).await.unwrap().remove(0);
    let result = entry.result.unwrap();
    assert!(result.contains("2 taken, 1 skipped, 0 missing"), "{result}");
    assert!(result.contains("shut"), "it names the reason: {result}");
}

#[tokio::test]
async fn a_sweep_that_an_error_ends_removes_what_it_has_published() {
    let (container, gate) = with_dead_letters(&["1", "2", "3"]).await;
    gate.0
        .lock()
        .unwrap()
        .insert("1".to_owned(), ErrorKind::Unavailable);
    let error = sweep(&container).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(archived(&container).await, ["2", "3"]);
    assert_eq!(left(&container).await, ["1"]);
    // The rest is before the place that the sweep had reached.
    gate.0.lock().unwrap().clear();
    let dead = container.dead_letters();
    let operation = dead.journal(&ORDERS, &BILLING).await.unwrap()[0].id;
    let report = dead.resume(&ORDERS, &BILLING, operation, &|_| {}).await;
    assert_eq!(report.unwrap().progress.taken, 1);
    assert_eq!(archived(&container).await, ["2", "3", "1"]);
    assert!(left(&container).await.is_empty());
    let entry = dead.journal(&ORDERS, &BILLING).await.unwrap().remove(0);
    assert_eq!(entry.taken, 3);
}
