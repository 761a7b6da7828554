//! Hooks around publishes.

use std::error::Error as StdError;

use redstart::extract::Publisher;
use redstart::memory::MemoryStore;
use redstart::middleware::PublishHook;
use redstart::testing::DeliveryBuilder;
use redstart::{Container, Envelope, Error, ErrorKind, Message, Published, Topic};

use crate::{Cancelled, ORDERS, PATIENCE, Placed, Seen};

const BILLS: Topic = Topic::from_static("bills");

/// Adds its name to a header, refuses messages without a key, and notes each result.
struct Stamp(&'static str, Seen);

impl PublishHook for Stamp {
    fn before(
        &self,
        _: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if envelope.key().is_none() {
            return Err("no key".into());
        }
        let stamps = envelope.headers().get("stamps");
        let stamps = stamps.cloned().unwrap_or_default() + self.0;
        envelope.set_header("stamps", stamps);
        Ok(())
    }

    fn after(&self, topic: &Topic, envelope: &Envelope, result: &Result<Published, Error>) {
        let stamps = envelope.headers().get("stamps");
        let (key, stamps) = (envelope.key(), stamps.map_or("", String::as_str));
        let result = result.as_ref().map(|_| ()).map_err(Error::kind);
        let name = self.0;
        self.1
            .note(format!("{name} {topic} {key:?} {stamps:?} {result:?}"));
    }
}

async fn container(seen: &Seen) -> Container {
    let builder = Container::builder()
        .with_memory(MemoryStore::new())
        .with_max_message_bytes(1000)
        .with_publish_hook(Stamp("a", seen.clone()))
        .with_publish_hook(Stamp("b", seen.clone()));
    builder.connect().await.unwrap()
}

fn placed(key: &str) -> Envelope {
    let envelope = Envelope::new(Placed::TYPE, &Placed { id: 1 }).unwrap();
    match key {
        "" => envelope,
        key => envelope.with_key(key),
    }
}

/// The stamps of the messages of a topic, by key.
async fn stored(container: &Container, topic: &Topic) -> Vec<String> {
    let entries = container.topics().entries_after(topic, None, 100).await;
    let entries = entries.unwrap().into_iter();
    let line = |entry: redstart::topics::Entry| {
        let envelope = entry.envelope.unwrap();
        let stamps = envelope.headers().get("stamps").cloned();
        format!(
            "{} {}",
            envelope.key().unwrap_or("?"),
            stamps.unwrap_or_default()
        )
    };
    entries.map(line).collect()
}

#[tokio::test]
async fn hooks_change_a_message_in_order_and_see_its_result_in_reverse() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let sent = placed("k");
    container.bus().publish(&ORDERS, &sent).await.unwrap();
    assert_eq!(stored(&container, &ORDERS).await, ["k ab"]);
    assert!(sent.headers().is_empty(), "the publisher's envelope stays");
    assert_eq!(
        seen.in_order(),
        [
            "b orders Some(\"k\") \"ab\" Ok(())",
            "a orders Some(\"k\") \"ab\" Ok(())"
        ]
    );
}

#[tokio::test]
async fn a_hook_refuses_one_message_of_a_batch_and_the_others_are_published() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let large = Envelope::new("large", &"x".repeat(2000)).unwrap();
    let sent = [placed("1"), placed(""), large.with_key("2"), placed("3")];
    let results = container.bus().publish_all(&ORDERS, &sent).await;
    let kinds: Vec<_> = results
        .iter()
        .map(|one| one.as_ref().err().map(Error::kind))
        .collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(ErrorKind::Invalid),
            Some(ErrorKind::TooLarge),
            None
        ]
    );
    let error = format!("{:?}", results[1].as_ref().unwrap_err());
    for part in ["\"orders\"", "publish_hooks::Stamp", "no key"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(stored(&container, &ORDERS).await, ["1 ab", "3 ab"]);
    let firsts = seen.in_order().into_iter();
    let firsts: Vec<_> = firsts.filter(|line| line.starts_with("a ")).collect();
    assert_eq!(
        firsts,
        [
            "a orders Some(\"1\") \"ab\" Ok(())",
            "a orders None \"\" Err(Invalid)",
            "a orders Some(\"2\") \"ab\" Err(TooLarge)",
            "a orders Some(\"3\") \"ab\" Ok(())",
        ]
    );
}

#[tokio::test]
async fn a_message_that_a_handler_publishes_passes_the_hooks_and_a_retry_does_not() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let (sender, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: Placed, publisher: Publisher, delivery: redstart::Delivery| {
        let sender = sender.clone();
        async move {
            let next = delivery.envelope().follow_up(&Cancelled { id: 1 })?;
            publisher.publish(&BILLS, &next.with_key("bill")).await?;
            let stamps = delivery.envelope().headers()["stamps"].clone();
            let _ = sender.send((delivery.attempt(), stamps));
            match delivery.attempt() {
                1 => Err("again".into()),
                _ => Ok::<(), Box<dyn StdError + Send + Sync>>(()),
            }
        }
    };
    let options = redstart::SubscribeOptions::new().with_retry(redstart::RetryPolicy::fixed(
        std::time::Duration::from_millis(1),
    ));
    let bus = container.bus();
    bus.subscribe_with(&ORDERS, options, handler).await.unwrap();
    bus.publish(&ORDERS, &placed("k")).await.unwrap();
    for attempt in [1, 2] {
        let called = tokio::time::timeout(PATIENCE, attempts.recv()).await;
        assert_eq!(called.unwrap(), Some((attempt, "ab".to_owned())));
    }
    assert_eq!(stored(&container, &BILLS).await, ["bill ab", "bill ab"]);
    let lines = seen.in_order().into_iter();
    let originals = lines.filter(|line| line.starts_with("a orders"));
    assert_eq!(originals.count(), 1, "the retry passes no hook");
    container.shutdown(PATIENCE).await;
    assert_eq!(
        bus.publish(&ORDERS, &placed("k")).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    let lines = seen.in_order().into_iter();
    let originals = lines.filter(|line| line.starts_with("a orders"));
    assert_eq!(originals.count(), 1, "a closed container runs no hook");
}

/// Notes the failed attempts of each message.
struct Attempts(Seen);

impl PublishHook for Attempts {
    fn before(
        &self,
        _: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let failed = envelope.failed_attempts();
        self.0.note(format!("{failed} {:?}", envelope.last_error()));
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_sees_a_received_message_as_it_is_published_again() {
    let seen = Seen::default();
    let builder = Container::builder()
        .with_memory(MemoryStore::new())
        .with_publish_hook(Attempts(seen.clone()));
    let container = builder.connect().await.unwrap();
    let received = DeliveryBuilder::new(&Placed { id: 1 })
        .unwrap()
        .with_attempt(3)
        .with_last_error("jammed")
        .build();
    let bus = container.bus();
    bus.publish(&ORDERS, received.envelope()).await.unwrap();
    assert_eq!(seen.in_order(), ["0 None"]);
}
