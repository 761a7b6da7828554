//! Middleware around batch handlers.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use redstart::middleware::Next;
use redstart::testing::TestBus;
use redstart::{
    Batch, Delivery, Envelope, Message, Outcome, RetryPolicy, Router, State, SubscribeOptions,
};
use tokio::sync::Semaphore;

use crate::{Cancelled, ORDERS, PATIENCE, Placed, Seen, letters};

async fn store(State(seen): State<Seen>, orders: Batch<Placed>) -> Vec<Outcome> {
    let ids: Vec<u32> = orders.messages().iter().map(|order| order.id).collect();
    seen.note(format!("batch {ids:?}"));
    let outcome = |order: &Placed| match order.id {
        13 => Outcome::dead_letter("unlucky"),
        _ => Outcome::Ack,
    };
    orders.messages().iter().map(outcome).collect()
}

async fn cancelled(State(seen): State<Seen>, order: Cancelled) {
    seen.note(format!("cancelled {}", order.id));
}

/// Ends messages of the tenant `eve`, and notes how the others end.
fn guard(seen: &Seen, name: &'static str) -> impl Fn(Delivery, Next) -> NextRun + use<> {
    let seen = seen.clone();
    move |delivery, next| {
        let seen = seen.clone();
        Box::pin(async move {
            if delivery.envelope().tenant() == Some("eve") {
                return Outcome::dead_letter("unknown tenant");
            }
            let id = delivery.envelope().key().unwrap_or("?").to_owned();
            let outcome = next.run(delivery).await;
            seen.note(format!("{name} {id}: {outcome:?}"));
            outcome
        })
    }
}

type NextRun = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn placed(id: u32) -> Envelope {
    let envelope = Envelope::new(Placed::TYPE, &Placed { id }).unwrap();
    envelope.with_key(id.to_string())
}

fn cancellation(id: u32) -> Envelope {
    let envelope = Envelope::new(Cancelled::TYPE, &Cancelled { id }).unwrap();
    envelope.with_key(id.to_string())
}

/// Publishes messages, and handles them in one gathered batch.
async fn run(test: &TestBus, sent: &[Envelope], router: Router<Seen>) {
    let bus = test.container().bus();
    for published in bus.publish_all(&ORDERS, sent).await {
        published.unwrap();
    }
    let once = RetryPolicy::fixed(PATIENCE).with_max_attempts(1);
    let options = SubscribeOptions::new()
        .with_retry(once)
        .with_batch(sent.len(), PATIENCE)
        .with_concurrency(1);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
}

#[tokio::test]
async fn each_message_passes_by_itself_and_those_let_through_share_one_call() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let inner = Router::with_state(seen.clone())
        .on_batch(store)
        .with_middleware(guard(&seen, "inner"));
    let router = Router::with_state(seen.clone())
        .on(cancelled)
        .with_middleware(guard(&seen, "outer"))
        .merge(inner);
    let sent = [
        placed(1),
        cancellation(2),
        placed(13),
        placed(66).with_tenant("eve"),
        placed(7),
    ];
    run(&test, &sent, router).await;
    let unlucky = "DeadLetter { reason: Rejected, error: \"unlucky\" }";
    assert_eq!(
        seen.lines(),
        [
            "batch [1, 13, 7]",
            "cancelled 2",
            &format!("inner 13: {unlucky}"),
            "inner 1: Ack",
            "inner 7: Ack",
            &format!("outer 13: {unlucky}"),
            "outer 1: Ack",
            "outer 2: Ack",
            "outer 7: Ack",
        ]
    );
    let mut errors: Vec<_> = letters(&test).await.into_iter().map(|one| one.3).collect();
    errors.sort();
    assert_eq!(errors, ["unknown tenant", "unlucky"]);
}

#[tokio::test]
async fn a_message_whose_type_middleware_changes_goes_to_the_handler_of_the_new_type() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let renames = |delivery: Delivery, next: Next| async move {
        let id = match delivery.envelope().payload::<Cancelled>() {
            Ok(order) => order.id,
            Err(error) => return Outcome::dead_letter(error),
        };
        let envelope = match delivery.envelope().message_type() {
            Placed::TYPE => cancellation(id),
            _ => placed(id),
        };
        next.run(delivery.with_envelope(envelope)).await
    };
    let router = Router::with_state(seen.clone())
        .on_batch(store)
        .on(cancelled)
        .with_middleware(renames);
    run(
        &test,
        &[placed(1), cancellation(2), cancellation(3)],
        router,
    )
    .await;
    assert_eq!(seen.lines(), ["batch [2, 3]", "cancelled 1"]);
    assert!(letters(&test).await.is_empty());
}

#[tokio::test]
async fn middleware_that_lets_one_message_through_at_a_time_does_not_stop_a_batch() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let permits = Arc::new(Semaphore::new(1));
    let one_at_a_time = move |delivery: Delivery, next: Next| {
        let permits = Arc::clone(&permits);
        async move {
            let _permit = permits.acquire().await.unwrap();
            next.run(delivery).await
        }
    };
    let router = Router::with_state(seen.clone())
        .on_batch(store)
        .with_middleware(one_at_a_time);
    run(&test, &[placed(1), placed(2), placed(3)], router).await;
    assert_eq!(seen.in_order(), ["batch [1]", "batch [2]", "batch [3]"]);
    assert!(letters(&test).await.is_empty());
}

#[tokio::test]
async fn a_panic_in_the_middleware_of_one_message_costs_no_other_message() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let panics = |delivery: Delivery, next: Next| async move {
        let id = delivery.envelope().key();
        assert_ne!(id, Some("2"), "a panic");
        next.run(delivery).await
    };
    let router = Router::with_state(seen.clone())
        .on_batch(store)
        .with_middleware(panics);
    run(&test, &[placed(1), placed(2), placed(3)], router).await;
    assert_eq!(seen.lines(), ["batch [1, 3]"]);
    let letters = letters(&test).await;
    let [(reason, _, _, error)] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(reason, "exhausted");
    assert!(error.starts_with("middleware panicked: "), "{error}");
}

#[tokio::test]
async fn a_batch_ends_when_middleware_has_given_up_all_of_its_messages() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let hangs = |orders: Batch<Placed>| async move {
        if orders.deliveries()[0].attempt() == 1 {
            std::future::pending::<()>().await;
        }
    };
    let limit = |delivery: Delivery, next: Next| async move {
        let limit = Duration::from_millis(20);
        let ended = tokio::time::timeout(limit, next.run(delivery)).await;
        ended.unwrap_or_else(|_| Outcome::dead_letter("too slow"))
    };
    let router = Router::with_state(seen.clone())
        .on_batch(hangs)
        .with_middleware(limit);
    // Without a free slot the test would not become idle.
    run(&test, &[placed(1), placed(2)], router).await;
    let errors: Vec<_> = letters(&test).await.into_iter().map(|one| one.3).collect();
    assert_eq!(errors, ["too slow", "too slow"]);
}

/// A machine under load may stop a try for longer than messages wait for each other.
const TRIES: usize = 50;

/// Passes messages through middleware that ends message 2, lets message 3 wait until others have arrived,
/// and message 4 until the batch handler is called. Returns the calls of the batch handler, and how
/// long the first message has waited for the first call.
async fn calls(ids: &[u32]) -> (Vec<String>, Duration) {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let called = Arc::new(Semaphore::new(0));
    let arrived = Arc::new(OnceLock::new());
    let (since, until) = (Arc::clone(&arrived), Arc::clone(&called));
    let passes = move |delivery: Delivery, next: Next| {
        let (arrived, called) = (Arc::clone(&since), Arc::clone(&until));
        async move {
            match delivery.envelope().key() {
                Some("2") => return Outcome::dead_letter("ended"),
                Some("3") => {
                    while arrived.get().is_none() {
                        tokio::task::yield_now().await;
                    }
                    tokio::task::yield_now().await;
                }
                Some("4") => called.acquire().await.unwrap().forget(),
                _ => {
                    arrived.get_or_init(Instant::now);
                }
            }
            next.run(delivery).await
        }
    };
    let waited = Arc::new(OnceLock::new());
    let (noting, first) = (seen.clone(), Arc::clone(&waited));
    let store = move |orders: Batch<Placed>| {
        let ids: Vec<u32> = orders.messages().iter().map(|order| order.id).collect();
        noting.note(format!("{ids:?}"));
        first.get_or_init(|| arrived.get().map(Instant::elapsed).unwrap_or_default());
        called.add_permits(1);
        async {}
    };
    let router = Router::with_state(Seen::default())
        .on_batch(store)
        .with_middleware(passes);
    let sent: Vec<_> = ids.iter().map(|id| placed(*id)).collect();
    run(&test, &sent, router).await;
    (seen.in_order(), waited.get().copied().unwrap_or_default())
}

#[tokio::test]
async fn messages_wait_for_a_slower_one_of_their_batch() {
    for _ in 0..TRIES {
        if calls(&[3, 1]).await.0 == ["[3, 1]"] {
            return;
        }
    }
    panic!("they never shared a call");
}

#[tokio::test]
async fn messages_do_not_wait_for_a_slower_one_for_ever() {
    assert_eq!(calls(&[1, 4, 5]).await.0, ["[1, 5]", "[4]"]);
}

#[tokio::test]
async fn messages_do_not_wait_for_one_that_middleware_has_ended() {
    for _ in 0..TRIES {
        let (calls, waited) = calls(&[1, 2]).await;
        assert_eq!(calls, ["[1]"]);
        if waited < Duration::from_millis(100) {
            return;
        }
    }
    panic!("they always waited");
}

/// Handles a batch beside a handler of another type, which waits until the middleware has seen the
/// outcome of the batch. Returns what the handlers noted.
async fn beside(other: impl Fn(Router<Seen>, Arc<Semaphore>) -> Router<Seen>) -> Vec<String> {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let returned = Arc::new(Semaphore::new(0));
    let router = Router::with_state(seen.clone()).on_batch(store);
    let router = other(router, Arc::clone(&returned));
    let passes = move |delivery: Delivery, next: Next| {
        let returned = Arc::clone(&returned);
        async move {
            let is_batched = delivery.envelope().message_type() == Placed::TYPE;
            let outcome = next.run(delivery).await;
            if is_batched {
                returned.add_permits(1);
            }
            outcome
        }
    };
    let sent = [cancellation(1), placed(2)];
    run(&test, &sent, router.with_middleware(passes)).await;
    assert!(letters(&test).await.is_empty());
    seen.lines()
}

async fn until(returned: Arc<Semaphore>) -> Outcome {
    match tokio::time::timeout(PATIENCE / 6, returned.acquire()).await {
        Ok(_) => Outcome::Ack,
        Err(_) => Outcome::dead_letter("the batch has not returned"),
    }
}

#[tokio::test]
async fn a_batch_returns_to_its_middleware_while_a_single_handler_runs() {
    let single = |router: Router<Seen>, returned: Arc<Semaphore>| {
        router.on(move |_: Cancelled| until(Arc::clone(&returned)))
    };
    assert_eq!(beside(single).await, ["batch [2]"]);
}

#[tokio::test]
async fn a_batch_returns_to_its_middleware_while_a_batch_of_another_type_runs() {
    let batch = |router: Router<Seen>, returned: Arc<Semaphore>| {
        router.on_batch(move |_: Batch<Cancelled>| until(Arc::clone(&returned)))
    };
    assert_eq!(beside(batch).await, ["batch [2]"]);
}

#[tokio::test]
async fn a_message_that_middleware_gives_up_before_the_call_is_not_in_the_batch() {
    let (test, seen) = (TestBus::start("billing").await, Seen::default());
    let gives_up = |delivery: Delivery, next: Next| async move {
        let first = delivery.envelope().key() == Some("1");
        let mut running = Box::pin(next.run(delivery));
        if first && poll_immediate(&mut running).await.is_none() {
            return Outcome::dead_letter("given up");
        }
        running.await
    };
    let router = Router::with_state(seen.clone())
        .on_batch(store)
        .with_middleware(gives_up);
    run(&test, &[placed(1), placed(2)], router).await;
    assert_eq!(seen.lines(), ["batch [2]"]);
    let errors: Vec<_> = letters(&test).await.into_iter().map(|one| one.3).collect();
    assert_eq!(errors, ["given up"]);
}
