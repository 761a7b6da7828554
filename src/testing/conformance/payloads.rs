//! Payloads: every consumer can read a payload that publish accepts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Subject;
use super::support::{Must as _, Stage, through_the_store};
use crate::api::Delivery;
use crate::container::Container;
use crate::domain::{Codec, DeadLetter, Envelope, ErrorKind};
use crate::extract::Payload;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Tick;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type")]
enum Transfer {
    Made { amount: u64, ratio: f32 },
}

/// One value of each kind that differs between the codecs.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    unit: (Tick, Option<Tick>),
    transfer: Transfer,
    keys: BTreeMap<u64, Vec<u8>>,
    raw: Box<RawValue>,
    json: Value,
}

impl Order {
    fn new() -> Self {
        Self {
            unit: (Tick, None),
            transfer: Transfer::Made {
                amount: u64::MAX,
                ratio: 0.1,
            },
            keys: BTreeMap::from([(7, vec![1, 2])]),
            raw: serde_json::from_str(r#"{"id":7,"list":[1.5,null]}"#).must("raw JSON"),
            json: json!({"n": -1, "f": 1.5, "t": ["é", true]}),
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).must("an order as text")
    }
}

async fn with_codec<S: Subject>(stage: &Stage<'_, S>, codec: Codec) -> Container {
    let builder = Container::builder()
        .with_store(Arc::clone(&stage.store))
        .with_service(stage.group.as_str())
        .with_codec(codec);
    builder.connect().await.must("connecting")
}

async fn survives<S: Subject>(subject: &S, codec: Codec) {
    let stage = Stage::bare(subject).await;
    let container = with_codec(&stage, codec).await;
    let broken = Arc::new(AtomicBool::new(true));
    let (sender, mut received) = mpsc::unbounded_channel();
    let fails = Arc::clone(&broken);
    let handler = move |Payload(order): Payload<Order>, delivery: Delivery| {
        let fails = fails.load(Ordering::SeqCst);
        let _ = sender.send((order, delivery.attempt()));
        async move { if fails { Err("on fire") } else { Ok(()) } }
    };
    let bus = container.bus();
    let made = bus
        .subscribe_with(&stage.topic, through_the_store(2), handler)
        .await;
    let _subscription = made.must("subscribing");
    let order = Order::new();
    let envelope = Envelope::new("order", &order).must("an envelope");
    let published = bus.publish(&stage.topic, &envelope).await;
    published.must("publishing");
    let letter = stage
        .until("the dead letter", async || stage.letters().await.pop())
        .await;
    let exported = DeadLetter::from_json(&letter.to_json()).must("reading the export");
    assert_eq!(exported, letter);
    broken.store(false, Ordering::SeqCst);
    let dead = container.dead_letters();
    let moved = dead.redrive(&stage.topic, &stage.group, &[letter.id]).await;
    assert_eq!(moved.must("redriving").moved, [letter.id]);
    let seen = stage.some(&mut received, 3).await;
    let attempts: Vec<u32> = seen.iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 1]);
    for (read, _) in seen {
        assert_eq!(read.text(), order.text(), "{codec}");
    }
    stage.end(&container).await;
}

/// A payload of every kind is the same at the first attempt, at a retry and after a redrive.
pub async fn accepted_payloads_survive_retry_and_redrive_in_messagepack<S: Subject>(subject: &S) {
    survives(subject, Codec::MessagePack).await;
}

/// A payload of every kind is the same at the first attempt, at a retry and after a redrive.
pub async fn accepted_payloads_survive_retry_and_redrive_in_json<S: Subject>(subject: &S) {
    survives(subject, Codec::Json).await;
}

/// Publishing refuses a payload that no consumer could read, and the topic stays empty.
pub async fn unreadable_payloads_are_refused<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    for wide in [Envelope::new("n", &5_u128), Envelope::new("n", &-5_i128)] {
        let error = wide.err().must("a refusal");
        assert_eq!(error.kind(), ErrorKind::Encode);
    }
    let digits: Box<RawValue> = serde_json::from_str("100000000000000000000001").must("JSON");
    for (codec, envelope) in [
        (Codec::Json, Envelope::new("n", &f64::NAN)),
        (Codec::Json, Envelope::new("n", &[f32::INFINITY])),
        (Codec::MessagePack, Envelope::new("n", &digits)),
    ] {
        let container = with_codec(&stage, codec).await;
        let envelope = envelope.must("an envelope");
        let published = container.bus().publish(&stage.topic, &envelope).await;
        let error = published.err().must("a refusal");
        assert_eq!(error.kind(), ErrorKind::Encode, "{codec}");
        stage.end(&container).await;
    }
    assert_eq!(stage.length().await, 0);
}
