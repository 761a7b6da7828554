//! Publishing messages that know their type.

use std::borrow::Cow;
use std::time::Duration;

use redstart::testing::TestBus;
use redstart::{ErrorKind, Message, PublishOptions, Topic};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

const ORDERS: Topic = Topic::from_static("orders");

/// An order; one without an id cannot be encoded.
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned(format!("order-{}", self.id)))
    }
}

impl Serialize for Placed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.id {
            0 => Err(S::Error::custom("an order without an id")),
            id => serializer.serialize_u32(id),
        }
    }
}

#[tokio::test]
async fn a_sent_message_is_an_envelope_with_its_type_and_key() {
    let test = TestBus::start("billing").await;
    let bus = test.container().bus();
    bus.send(&ORDERS, &Placed { id: 7 }).await.unwrap();
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    for _ in 0..2 {
        let sent = bus.send_with(&ORDERS, &Placed { id: 8 }, options).await;
        assert!(
            !sent.unwrap().duplicate,
            "each call is a message of its own"
        );
    }
    let published = test.published(&ORDERS);
    let heads: Vec<_> = published
        .envelopes()
        .iter()
        .map(|one| (one.message_type(), one.key(), one.payload().unwrap()))
        .collect();
    let order = |key, id: u32| ("order.placed", Some(key), id);
    assert_eq!(
        heads,
        [
            order("order-7", 7),
            order("order-8", 8),
            order("order-8", 8)
        ]
    );
    let error = bus.send(&ORDERS, &Placed { id: 0 }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
}

#[tokio::test]
async fn of_many_messages_only_those_that_cannot_be_encoded_fail() {
    let test = TestBus::start("billing").await;
    let orders = [0, 1, 2, 0, 3].map(|id| Placed { id });
    let results = test.container().bus().send_all(&ORDERS, &orders).await;
    let kinds: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(redstart::Error::kind))
        .collect();
    let refused = Some(ErrorKind::Encode);
    assert_eq!(kinds, [refused, None, None, refused, None]);
    assert_eq!(test.published(&ORDERS).payloads::<u32>(), [1, 2, 3]);
}
