//! What handlers take.

use redstart::extract::{
    Attempt, Correlation, FromDelivery, FromRef, Headers, Key, Payload, Tenant,
};
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{Delivery, Envelope, Message, Outcome, Router, State, dead_letters::Reason};

use crate::{ORDERS, Placed, Seen, letters};

/// The state of an application, of which handlers take parts.
struct App {
    currency: &'static str,
    seen: Seen,
}

#[derive(Clone)]
struct Currency(&'static str);

impl FromRef<App> for Currency {
    fn from_ref(app: &App) -> Self {
        Self(app.currency)
    }
}

impl FromRef<App> for Seen {
    fn from_ref(app: &App) -> Self {
        app.seen.clone()
    }
}

/// An extractor of an application.
struct Author(String);

impl<S: Sync> FromDelivery<S> for Author {
    type Rejection = Outcome;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Outcome> {
        let author = delivery.envelope().headers().get("author");
        let missing = || Outcome::dead_letter("no header `author`");
        author.cloned().map(Self).ok_or_else(missing)
    }
}

#[allow(clippy::too_many_arguments)]
async fn all(
    Attempt(attempt): Attempt,
    State(seen): State<Seen>,
    Author(author): Author,
    tenant: Option<Tenant>,
    order: Placed,
    State(currency): State<Currency>,
    Correlation(correlation): Correlation,
    delivery: Delivery,
) {
    let tenant = tenant.map(|tenant| tenant.0);
    let same = delivery.envelope().correlation() == Some(&*correlation);
    let id = order.id;
    seen.note(format!(
        "{id} by {author} in {} for {tenant:?}, attempt {attempt}, {same}",
        currency.0
    ));
}

fn placed() -> Envelope {
    Envelope::new(Placed::TYPE, &Placed { id: 7 }).unwrap()
}

#[tokio::test]
async fn eight_arguments_come_in_any_order_and_a_rejection_ends_the_delivery() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let app = App {
        currency: "EUR",
        seen: seen.clone(),
    };
    let router = Router::with_state(app).on(all);
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    test.publish(&ORDERS, &placed().with_header("author", "ann"))
        .await;
    let with_tenant = placed().with_header("author", "bob").with_tenant("acme");
    test.publish(&ORDERS, &with_tenant).await;
    let first = "7 by ann in EUR for None, attempt 1, true";
    let second = "7 by bob in EUR for Some(\"acme\"), attempt 1, true";
    assert_eq!(seen.lines(), [first, second]);
    test.publish(&ORDERS, &placed()).await;
    let (reason, _, _, error) = letters(&test).await.remove(0);
    assert_eq!((&*reason, &*error), ("rejected", "no header `author`"));
}

async fn outcome_of<M, H: redstart::handler::IntoRouter<M>>(
    handler: H,
    envelope: Envelope,
) -> Outcome {
    call(handler, DeliveryBuilder::from_envelope(envelope).build()).await
}

#[tokio::test]
async fn an_absent_part_is_a_rejection_an_option_or_a_result() {
    let strict = |_: Tenant, _: Key| async {};
    let missing = Outcome::dead_letter("the message has no tenant");
    assert_eq!(outcome_of(strict, placed()).await, missing);
    let missing = Outcome::dead_letter("the message has no ordering key");
    assert_eq!(
        outcome_of(strict, placed().with_tenant("acme")).await,
        missing
    );
    let full = placed().with_tenant("acme").with_key("ann");
    assert_eq!(outcome_of(strict, full).await, Outcome::Ack);

    let lenient = |tenant: Option<Tenant>, key: Result<Key, Outcome>| async move {
        assert!(tenant.is_none());
        key.map(|_| ())
            .err()
            .map_or(Outcome::Ack, |_| Outcome::dead_letter("seen"))
    };
    assert_eq!(
        outcome_of(lenient, placed()).await,
        Outcome::dead_letter("seen")
    );
}

#[tokio::test]
async fn a_payload_that_does_not_decode_is_undecodable_or_a_result() {
    let wrong = || Envelope::new(Placed::TYPE, "seven").unwrap();
    let strict = |_: Placed| async {};
    let Outcome::DeadLetter { reason, error } = outcome_of(strict, wrong()).await else {
        panic!("not a dead letter");
    };
    assert_eq!(reason, Reason::Undecodable);
    assert!(error.starts_with("decode payload: "), "{error}");
    let lenient = |payload: Result<Payload<Placed>, Outcome>| async move {
        assert!(payload.is_err());
    };
    assert_eq!(outcome_of(lenient, wrong()).await, Outcome::Ack);
}

#[tokio::test]
async fn a_handler_can_take_nothing_or_only_parts() {
    let nothing = || async {};
    assert_eq!(outcome_of(nothing, placed()).await, Outcome::Ack);
    let headers = |Headers(headers): Headers, envelope: Envelope| async move {
        assert_eq!(&headers, envelope.headers());
        Outcome::dead_letter(headers["a"].clone())
    };
    let sent = placed().with_header("a", "b");
    assert_eq!(outcome_of(headers, sent).await, Outcome::dead_letter("b"));
    let everything = Outcome::dead_letter("closed");
    assert_eq!(outcome_of(everything.clone(), placed()).await, everything);
}
