//! Hooks around publishes.

use std::error::Error as StdError;
use std::time::Duration;

use redstart::extract::Publisher;
use redstart::memory::MemoryStore;
use redstart::middleware::PublishHook;
use redstart::testing::DeliveryBuilder;
use redstart::topics::TopicSettings;
use redstart::{
    Container, Effects, Envelope, Error, ErrorKind, Message, PublishOptions, Published, Topic,
};

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

#[tokio::test]
async fn each_message_of_refused_effects_has_its_result() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let mut effects = Effects::new();
    let day = Duration::from_secs(86_400);
    effects
        .publish(&ORDERS, placed("1"))
        .publish_after(day, &BILLS, placed("2"))
        .publish(&ORDERS, placed(""));
    let error = container.rehearse(&effects).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(seen.in_order().is_empty(), "a rehearsal has no results");
    container.commit(effects).await.unwrap_err();
    let of_a = |seen: &Seen| {
        let lines = seen.in_order().into_iter();
        lines
            .filter(|line| line.starts_with("a "))
            .collect::<Vec<_>>()
    };
    let refused = [
        "a orders Some(\"1\") \"ab\" Err(Invalid)",
        "a bills Some(\"2\") \"ab\" Err(Invalid)",
        "a orders None \"\" Err(Invalid)",
    ];
    assert_eq!(of_a(&seen), refused);

    // Of accepted ones, the message for later has its result when it is due, from the store alone.
    let (seen, mut effects) = (Seen::default(), Effects::new());
    let container = self::container(&seen).await;
    effects
        .publish_after(day, &BILLS, placed("2"))
        .publish(&ORDERS, placed("1"));
    container.commit(effects).await.unwrap();
    assert_eq!(of_a(&seen), ["a orders Some(\"1\") \"ab\" Ok(())"]);
}

#[tokio::test]
async fn a_message_for_later_that_is_not_scheduled_has_its_result() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let (bus, day) = (container.bus(), Duration::from_secs(86_400));
    bus.publish_after(day, &ORDERS, &placed("1")).await.unwrap();
    bus.publish_after(day, &ORDERS, &placed(""))
        .await
        .unwrap_err();
    assert_eq!(
        seen.in_order(),
        [
            "b orders None \"\" Err(Invalid)",
            "a orders None \"\" Err(Invalid)"
        ]
    );
}

#[tokio::test]
async fn effects_for_which_a_topic_has_no_space_tell_the_hooks() {
    let seen = Seen::default();
    let container = container(&seen).await;
    let settings = TopicSettings::default().with_backlog_limit(1);
    container.topics().create(&ORDERS, settings).await.unwrap();
    container
        .bus()
        .publish(&ORDERS, &placed("1"))
        .await
        .unwrap();
    let mut effects = Effects::new();
    effects.publish(&ORDERS, placed("2"));
    let error = container.commit(effects).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BacklogFull);
    let lines = &seen.in_order()[2..];
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.iter().all(|line| line.ends_with("Err(BacklogFull)")),
        "{lines:?}"
    );
}

/// Gives every message the same id.
struct OneId(uuid::Uuid);

impl PublishHook for OneId {
    fn before(
        &self,
        _: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        *envelope = envelope.clone().with_id(self.0);
        Ok(())
    }
}

#[tokio::test]
async fn deduplication_goes_by_the_id_that_the_hooks_left() {
    let builder = Container::builder()
        .with_memory(MemoryStore::new())
        .with_publish_hook(OneId(uuid::Uuid::from_u128(7)));
    let container = builder.connect().await.unwrap();
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let bus = container.bus();
    let first = bus
        .publish_with(&ORDERS, &placed("1"), options)
        .await
        .unwrap();
    let mut effects = Effects::new();
    effects.publish_with(&ORDERS, placed("2"), options);
    let done = container.commit(effects).await.unwrap();
    assert_eq!(done.published[0].id, first.id);
    assert!(done.published[0].duplicate);
}
