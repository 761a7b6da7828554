//! Errors that decide how a delivery ends.

use std::fmt;
use std::io;
use std::time::Duration;

use redstart::kv::{Once, OnceError, once};
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{Container, Error, ErrorKind, Kv, Outcome, Router, State};

use crate::{ORDERS, Placed, letters};

#[derive(Debug)]
enum ShopError {
    NoSuchOrder,
    Busy,
    Disk(io::Error),
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchOrder => "no such order",
            Self::Busy => "busy",
            Self::Disk(_) => "the ledger cannot be written",
        })
    }
}

impl std::error::Error for ShopError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<ShopError> for Outcome {
    fn from(error: ShopError) -> Self {
        match error {
            ShopError::NoSuchOrder => Outcome::dead_letter(error),
            ShopError::Busy => Outcome::snooze(Duration::from_secs(5)),
            ShopError::Disk(_) => Outcome::retry(error),
        }
    }
}

fn find(id: u32) -> Result<(), ShopError> {
    match id {
        1 => Err(ShopError::NoSuchOrder),
        2 => Err(ShopError::Busy),
        3 => Err(ShopError::Disk(io::Error::other("disk full"))),
        _ => Ok(()),
    }
}

fn expected(id: u32) -> Outcome {
    match id {
        1 => Outcome::dead_letter("no such order"),
        2 => Outcome::snooze(Duration::from_secs(5)),
        3 => Outcome::retry("the ledger cannot be written: disk full"),
        _ => Outcome::Ack,
    }
}

fn delivery(id: u32) -> redstart::Delivery {
    DeliveryBuilder::new(&Placed { id }).unwrap().build()
}

#[tokio::test]
async fn an_error_decides_by_itself_or_by_a_rule_of_its_router() {
    async fn by_itself(order: Placed) -> Result<(), Outcome> {
        Ok(find(order.id)?)
    }
    async fn plain(order: Placed) -> Result<(), ShopError> {
        find(order.id)
    }
    async fn boxed(order: Placed) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(find(order.id)?)
    }
    let decide = |error: &ShopError| match error {
        ShopError::NoSuchOrder => Some(Outcome::dead_letter("no such order")),
        ShopError::Busy => Some(Outcome::snooze(Duration::from_secs(5))),
        ShopError::Disk(_) => None,
    };
    for id in 1..5 {
        assert_eq!(call(by_itself, delivery(id)).await, expected(id));
        let router = Router::new().on(plain).on_error(decide);
        assert_eq!(call(router, delivery(id)).await, expected(id));
        let router = Router::new().on(boxed).on_cause(decide);
        assert_eq!(call(router, delivery(id)).await, expected(id));
    }
    let unruled = call(plain, delivery(1)).await;
    assert_eq!(unruled, Outcome::retry("no such order"));
}

#[tokio::test]
async fn the_texts_of_an_error_and_its_causes_reach_the_dead_letter_and_nothing_else_does() {
    async fn charge(State(kv): State<Kv>, order: Placed) -> Result<(), OnceError<ShopError>> {
        let (key, day) = (format!("charge:{}", order.id), Duration::from_secs(86_400));
        let done = once(&kv, &key, day, || async move { find(order.id) }).await?;
        assert_eq!(done, Once::Executed(()));
        Ok(())
    }
    let test = TestBus::start("billing").await;
    let router = Router::with_state(test.container().kv())
        .on(charge)
        .on_cause(|error: &io::Error| Some(Outcome::dead_letter(error.to_string())))
        .on_cause(|error: &ShopError| {
            let text = error.to_string();
            matches!(error, ShopError::NoSuchOrder).then(|| Outcome::dead_letter(text))
        });
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    test.send(&ORDERS, &Placed { id: 1 }).await;
    test.send(&ORDERS, &Placed { id: 3 }).await;
    let found: Vec<_> = letters(&test)
        .await
        .into_iter()
        .map(|one| (one.0, one.3))
        .collect();
    let rejected = |text: &str| ("rejected".to_owned(), text.to_owned());
    assert_eq!(found, [rejected("no such order"), rejected("disk full")]);

    let kv = Container::in_memory().await.unwrap().kv();
    let router = Router::with_state(kv).on(charge);
    let outcome = call(router, delivery(3)).await;
    assert_eq!(outcome, expected(3));
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_attempt_inside_once_either() {
    let test = TestBus::start("billing").await;
    async fn charge(State(kv): State<Kv>, order: Placed) -> Result<(), OnceError<ShopError>> {
        let minute = Duration::from_secs(60);
        let _ = once(&kv, "charge", minute, || async move { find(order.id) }).await?;
        Ok(())
    }
    let router = || Router::with_state(test.container().kv()).on(charge);
    test.faults().disconnect();
    let outcome = call(router(), delivery(4)).await;
    assert!(matches!(outcome, Outcome::BackOff { .. }), "{outcome:?}");
    test.faults().reconnect();
    let by_kind = |error: &Error| {
        let unavailable = error.kind() == ErrorKind::Unavailable;
        unavailable.then(|| Outcome::snooze(Duration::from_secs(1)))
    };
    test.faults().disconnect();
    let outcome = call(router().on_cause(by_kind), delivery(4)).await;
    assert_eq!(outcome, Outcome::snooze(Duration::from_secs(1)));
    test.faults().reconnect();
}
