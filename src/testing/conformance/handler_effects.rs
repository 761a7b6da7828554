//! Effects that handlers return: together with the acknowledgement, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Subject;
use super::support::{DAY, Must as _, Stage, number, quick, topic};
use crate::api::Rehearsed;
use crate::api::{Batch, Delivery, Handler, Kv, Message, Payload, Router, SubscribeOptions};
use crate::domain::{Effects, Error, ErrorKind, Outcome, TopicSettings};
use crate::store::Partition;

#[derive(Deserialize, Serialize)]
struct Number(u32);

impl Message for Number {
    const TYPE: &'static str = "n";
}

/// One message for `bills`, and one more in the key.
fn effects_of(n: u32, key: &str) -> Result<Effects, Error> {
    let mut effects = Effects::new();
    effects.send(&topic("bills"), &Number(n)).incr(key, 1);
    Ok(effects)
}

async fn by_function(Number(n): Number) -> Result<Effects, Error> {
    effects_of(n, "n")
}

#[derive(Debug)]
struct ByStruct;

impl Handler for ByStruct {
    type Message = Number;
    type Output = Result<Effects, Error>;

    async fn handle(&self, Number(n): Number, _: Delivery) -> Result<Effects, Error> {
        effects_of(n, "n")
    }
}

async fn by_batch(batch: Batch<Number>) -> Vec<Result<Effects, Error>> {
    let each = batch.messages().iter();
    each.map(|Number(n)| effects_of(*n, "n")).collect()
}

async fn value<S: Subject>(stage: &Stage<'_, S>, key: &str) -> i64 {
    let found = stage.container.kv().get(key).await;
    found.must("getting").unwrap_or(0)
}

/// Waits until the group has drained, and expects these messages in `bills`, in any order.
async fn expect<S: Subject>(stage: &Stage<'_, S>, expected: std::ops::Range<u32>) {
    stage.drained().await;
    let bills = crate::store::Partition::of(&topic("bills"));
    let found = stage.store.log().latest(&bills, 1000).await;
    let found = found.must("reading").into_iter();
    let limits = crate::store::Limits::default();
    let mut numbers: Vec<u32> = found
        .map(|(id, fields)| {
            let fields = fields.iter().map(|(name, value)| (&name[..], &value[..]));
            let envelope = crate::store::decode_entry(bills.topic(), id, fields, limits);
            envelope.must("decoding").payload().must("a number")
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected.clone().collect::<Vec<_>>());
    assert_eq!(value(stage, "n").await, i64::from(expected.end));
}

/// A handler's effects are written once, whatever kind of handler it is.
pub async fn every_kind_of_handler_returns_effects<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (bus, options) = (stage.container.bus(), SubscribeOptions::new());
    let mut from = 0;
    let mut publish = async || {
        stage.publish(from..from + 20).await;
        from += 20;
        expect(&stage, 0..from).await;
    };
    let subscribed = bus.subscribe(&stage.topic, by_function).await;
    let subscription = subscribed.must("subscribing");
    publish().await;
    subscription.unsubscribe(DAY).await;

    let closure = |Payload(n): Payload<u32>| async move { effects_of(n, "n") };
    let subscribed = bus.subscribe_with(&stage.topic, options.clone(), closure);
    let subscription = subscribed.await.must("subscribing");
    publish().await;
    subscription.unsubscribe(DAY).await;

    let subscribed = bus.subscribe(&stage.topic, ByStruct).await;
    let subscription = subscribed.must("subscribing");
    publish().await;
    subscription.unsubscribe(DAY).await;

    let router = Router::new().on(by_function);
    let subscribed = bus.subscribe(&stage.topic, router).await;
    let subscription = subscribed.must("subscribing");
    publish().await;
    subscription.unsubscribe(DAY).await;

    let router = Router::new().on_batch(by_batch);
    let subscribed = bus.subscribe(&stage.topic, router).await;
    subscribed.must("subscribing");
    publish().await;
    stage.finish().await;
}

/// A handler that returns an error discards its effects, and so does one whose effects break a rule.
pub async fn a_failed_attempt_writes_no_effects<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |Payload(n): Payload<u32>| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut effects = effects_of(n, "n")?;
            match call {
                0 => Err(Error::new(
                    ErrorKind::Refused,
                    "test",
                    "by order of the check",
                )),
                1 => {
                    effects.incr("n", 1);
                    Ok(effects)
                }
                2 => {
                    effects.incr_within("stock", -1, 0..=9);
                    Ok(effects)
                }
                _ => Ok(effects),
            }
        }
    };
    let bus = stage.container.bus();
    let subscribed = bus.subscribe_with(&stage.topic, quick(5), handler).await;
    subscribed.must("subscribing");
    stage.publish(0..1).await;
    expect(&stage, 0..1).await;
    assert_eq!(
        calls.load(Ordering::SeqCst),
        4,
        "each failure is an attempt"
    );
    stage.finish().await;
}

/// A conflict runs the handler again at once with the same attempt; sums are exact.
pub async fn a_conflict_runs_the_handler_again_with_the_same_attempt<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (kv, calls) = (stage.container.kv(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (kv, call) = (kv.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            assert_eq!(delivery.attempt(), 1);
            let read = kv.read::<i64>("sum").await?;
            if call < 3 {
                // Another program changes the value meanwhile.
                kv.incr("sum", 100).await?;
            }
            let mut effects = effects_of(n, "n")?;
            effects.replace(&read, &(read.value_or(0) + 1));
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let options = SubscribeOptions::new().with_concurrency(1);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..10).await;
    expect(&stage, 0..10).await;
    assert_eq!(calls.load(Ordering::SeqCst), 13);
    assert_eq!(value(&stage, "sum").await, 310);
    stage.finish().await;
}

/// A message that always conflicts fails its attempts, and is dead-lettered with the key.
pub async fn a_lasting_conflict_is_a_failed_attempt<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let kv = stage.container.kv();
    let handler = move |_: Payload<u32>| {
        let kv = kv.clone();
        async move {
            let read = kv.read::<i64>("hot").await?;
            kv.incr("hot", 1).await?;
            let mut effects = Effects::new();
            effects.replace(&read, &0);
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let subscribed = bus.subscribe_with(&stage.topic, quick(2), handler).await;
    subscribed.must("subscribing");
    stage.publish(0..1).await;
    let letters = stage
        .until("a dead letter", async || {
            let letters = stage.letters().await;
            (!letters.is_empty()).then_some(letters)
        })
        .await;
    assert_eq!(letters[0].attempts, 2);
    assert!(letters[0].error.contains("hot"), "{}", letters[0].error);
    assert!(value(&stage, "hot").await >= 20, "ten runs an attempt");
    stage.finish().await;
}

/// Handlers side by side that read and replace one value lose no update.
pub async fn concurrent_replacements_lose_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let kv = stage.container.kv();
    let handler = move |Payload(n): Payload<u32>| {
        let kv = kv.clone();
        async move {
            let read = kv.read::<i64>("sum").await?;
            let mut effects = effects_of(n, "n")?;
            effects.replace(&read, &(read.value_or(0) + 1));
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let options = quick(1000).with_concurrency(4);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..100).await;
    expect(&stage, 0..100).await;
    assert_eq!(value(&stage, "sum").await, 100);
    stage.finish().await;
}

/// A subscription with one handler sees the state that the message before has left.
pub async fn one_handler_sees_what_the_last_message_wrote<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let kv = stage.container.kv();
    let handler = move |Payload(n): Payload<u32>| {
        let kv = kv.clone();
        async move {
            let last: Option<u32> = kv.get("last").await?;
            assert_eq!(last, n.checked_sub(1));
            let mut effects = effects_of(n, "n")?;
            effects.set("last", &n);
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let options = quick(1).with_concurrency(1);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..50).await;
    expect(&stage, 0..50).await;
    assert!(stage.letters().await.is_empty());
    stage.finish().await;
}

/// A full topic downstream holds deliveries under their leases and costs no attempt.
pub async fn a_full_topic_slows_down_the_one_before<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (bills, limit) = (
        topic("bills"),
        TopicSettings::default().with_backlog_limit(5),
    );
    let made = stage.store.topics().ensure_topic(&bills, limit).await;
    made.must("creating the topic");
    let (sender, mut called) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send(delivery.attempt());
        async move { effects_of(n, "n") }
    };
    let bus = stage.container.bus();
    let options = quick(2).with_concurrency(8);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..8).await;
    let attempts = stage.some(&mut called, 8).await;
    assert_eq!(attempts, [1; 8]);
    stage
        .until("the topic to be full", async || {
            (value(&stage, "n").await == 5).then_some(())
        })
        .await;
    // A group that settles makes space.
    let drain = |_: Payload<u32>| async {};
    let options = SubscribeOptions::new().with_group(super::support::group("drain"));
    let subscribed = bus.subscribe_with(&bills, options, drain).await;
    subscribed.must("subscribing");
    stage.drained().await;
    assert_eq!(value(&stage, "n").await, 8);
    assert!(called.try_recv().is_err(), "no handler was called again");
    stage.finish().await;
}

/// A checkpoint writes and keeps the delivery; it fails when another consumer has the message.
pub async fn a_checkpoint_is_written_before_the_end<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let kv = stage.container.kv();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (sender, kv) = (sender.clone(), kv.clone());
        async move {
            let done = delivery.checkpoint(effects_of(n, "n")?).await?;
            let seen: Option<i64> = kv.get("n").await?;
            let _ = sender.send((done.published.len(), seen));
            let mut effects = Effects::new();
            effects.incr("end", 1);
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let subscribed = bus.subscribe_with(&stage.topic, quick(1), handler).await;
    subscribed.must("subscribing");
    stage.publish(0..1).await;
    assert_eq!(stage.next(&mut received).await, (1, Some(1)));
    expect(&stage, 0..1).await;
    assert_eq!(value(&stage, "end").await, 1);
    assert!(stage.letters().await.is_empty());
    stage.finish().await;
}

async fn slow(kv: Kv, n: u32, delivery: Delivery) -> Result<Effects, Error> {
    kv.set(&format!("began:{n}"), &true).await?;
    delivery.cancelled().await;
    effects_of(n, "n")
}

/// The effects of a handler that has lost its lease are dropped.
pub async fn a_lost_lease_drops_the_effects<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (kv, bus) = (stage.container.kv(), stage.container.bus());
    let (sender, mut returned) = mpsc::unbounded_channel();
    let handler = {
        let kv = kv.clone();
        move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (sender, slow) = (sender.clone(), slow(kv.clone(), n, delivery));
            async move {
                let effects = slow.await;
                let _ = sender.send(effects.is_ok());
                effects
            }
        }
    };
    let lease = Duration::from_secs(2);
    let options = quick(3).with_lease(lease);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..1).await;
    stage
        .until("the handler to begin", async || {
            let began: Option<bool> = kv.get("began:0").await.must("getting");
            began
        })
        .await;
    // Another member takes the message over.
    let (other, deliveries) = (stage.member("other"), stage.store.deliveries());
    let holder = stage.holder().await;
    let ids = stage.take_over(&holder, &other).await;
    assert!(stage.next(&mut returned).await, "the handler is cancelled");
    stage.finish().await;
    assert_eq!(value(&stage, "n").await, 0);
    let pending = deliveries.pending_of(&other, 10).await.must("listing");
    assert_eq!(pending, ids);
}

/// A shutdown writes the effects of handlers that have returned.
pub async fn a_shutdown_writes_returned_effects<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>| {
        let _ = sender.send(n);
        async move { effects_of(n, "n").map(Outcome::Commit) }
    };
    let bus = stage.container.bus();
    let options = quick(1).with_concurrency(16);
    let subscribed = bus.subscribe_with(&stage.topic, options, handler).await;
    subscribed.must("subscribing");
    stage.publish(0..200).await;
    stage.next(&mut received).await;
    stage.finish().await;
    let mut called = 1;
    while received.try_recv().is_ok() {
        called += 1;
    }
    assert_eq!(value(&stage, "n").await, called);
    let [lag, in_flight, ..] = stage.counts().await;
    // What no handler began was given back.
    assert_eq!(
        i64::try_from(lag + in_flight).must("a number"),
        200 - called
    );
}

/// A shadow group sees every message and checks its effects; nothing comes of them.
pub async fn a_shadow_group_writes_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let observe = move |one: &Rehearsed| {
        let payload = one.envelope.as_ref().map(|one| one.payload::<u32>());
        let _ = sender.send((payload.must("an envelope").must("a number"), one.result()));
    };
    let kv = stage.container.kv();
    kv.set("taken", &1).await.must("storing");
    let handler = async |Payload(n): Payload<u32>, delivery: Delivery| {
        let mut effects = Effects::new();
        effects.incr("seen", 1).publish(&topic("others"), number(n));
        match n {
            1 => {
                let early = delivery.checkpoint(effects.clone()).await;
                assert!(early.must("a checkpoint").published.is_empty());
                Outcome::Commit(effects)
            }
            2 => Outcome::retry("not now"),
            3 => {
                effects.insert("taken", &2, None);
                Outcome::Commit(effects)
            }
            4 => Outcome::Ack,
            _ => Outcome::dead_letter("never"),
        }
    };
    let options = quick(5).with_rehearsal_observer(observe);
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    stage.publish(1..6).await;
    let mut seen = stage.some(&mut received, 5).await;
    seen.sort_unstable();
    let results = ["writes", "failed", "conflict", "ack", "failed"];
    assert_eq!(seen, (1..6).zip(results).collect::<Vec<_>>());
    assert_eq!(stage.drained().await.dead, 0);
    assert_eq!(kv.get::<i64>("seen").await.must("reading"), None);
    assert_eq!(kv.get::<i64>("taken").await.must("reading"), Some(1));
    let others = Partition::of(&topic("others"));
    let newest = stage.store.log().newest(&others).await;
    assert_eq!(newest.must("asking"), None);
    stage.finish().await;
    assert!(received.try_recv().is_err(), "each message once");
}
