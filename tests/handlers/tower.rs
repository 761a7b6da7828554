//! Layers of tower as middleware.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redstart::middleware::{Next, Tower};
use redstart::testing::{DeliveryBuilder, TestBus, call};
use redstart::{Batch, Delivery, Outcome, Router, State, SubscribeOptions};
use tokio::sync::{Semaphore, mpsc};
use tower::BoxError;
use tower::buffer::BufferLayer;
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer};
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;

use crate::{BILLING, Cancelled, ORDERS, PATIENCE, Placed, letters};

const SOON: Duration = Duration::from_millis(20);

async fn placed(order: Placed) {
    if order.id == 9 {
        std::future::pending::<()>().await;
    }
}

fn delivery(id: u32) -> Delivery {
    DeliveryBuilder::new(&Placed { id }).unwrap().build()
}

#[tokio::test]
async fn a_timeout_is_a_failed_attempt_and_error_rules_see_its_type() {
    let router = || {
        Router::new()
            .on(placed)
            .with_middleware(Tower(TimeoutLayer::new(SOON)))
    };
    assert_eq!(
        call(router(), delivery(9)).await,
        Outcome::retry("request timed out")
    );
    let patient = Router::new()
        .on(placed)
        .with_middleware(Tower(TimeoutLayer::new(PATIENCE)));
    assert_eq!(call(patient, delivery(1)).await, Outcome::Ack);
    let snoozes = |_: &Elapsed| Some(Outcome::snooze(SOON));
    assert_eq!(
        call(router().on_cause(snoozes), delivery(9)).await,
        Outcome::snooze(SOON)
    );
    let by_value = |error: &BoxError| Some(Outcome::dead_letter(error.to_string()));
    assert_eq!(
        call(router().on_error(by_value), delivery(9)).await,
        Outcome::dead_letter("request timed out")
    );
}

#[tokio::test]
async fn layers_erase_no_reason_of_a_handler() {
    let test = TestBus::start("billing").await;
    let router = Router::new()
        .on(placed)
        .with_middleware(Tower(GlobalConcurrencyLimitLayer::new(4)))
        .with_middleware(Tower(TimeoutLayer::new(PATIENCE)))
        .with_middleware(Tower(BufferLayer::<Delivery>::new(4)));
    let bus = test.container().bus();
    bus.subscribe(&ORDERS, router).await.unwrap();
    let wrong = redstart::Envelope::new("order.placed", "seven").unwrap();
    test.publish(&ORDERS, &wrong).await;
    test.send(&ORDERS, &Cancelled { id: 1 }).await;
    let mut reasons: Vec<_> = letters(&test).await.into_iter().map(|one| one.0).collect();
    reasons.sort();
    assert_eq!(reasons, ["undecodable", "unhandled"]);
    test.dead_letters(&ORDERS, &BILLING).await.assert_count(2);
}

/// Calls of handlers.
#[derive(Clone, Default)]
struct Gauge {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// How many must run at once before any ends.
    expected: usize,
}

async fn counted(State(gauge): State<Gauge>, _: Placed) {
    let running = gauge.running.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(running, Ordering::SeqCst);
    while gauge.most.load(Ordering::SeqCst) < gauge.expected {
        tokio::task::yield_now().await;
    }
    // Others could begin now, if the layer let them.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gauge.running.fetch_sub(1, Ordering::SeqCst);
    gauge.ended.fetch_add(1, Ordering::SeqCst);
}

/// Handles messages behind a layer, eight at a time if it lets them; `expected` must run at once.
/// Returns how many ran at once.
async fn most_at_once(
    expected: usize,
    with_layer: impl FnOnce(Router<Gauge>) -> Router<Gauge>,
) -> usize {
    let test = TestBus::start("billing").await;
    let gauge = Gauge {
        expected,
        ..Gauge::default()
    };
    let router = with_layer(Router::with_state(gauge.clone()).on(counted));
    let options = SubscribeOptions::new().with_concurrency(8);
    let bus = test.container().bus();
    let sent: Vec<_> = (0..24).map(|id| Placed { id }).collect();
    for published in bus.send_all(&ORDERS, &sent).await {
        published.unwrap();
    }
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
    assert_eq!(gauge.ended.load(Ordering::SeqCst), sent.len());
    assert!(letters(&test).await.is_empty());
    gauge.most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn concurrency_limits_and_buffers_hold_back_handlers() {
    assert_eq!(most_at_once(8, |r| r).await, 8, "nothing holds them back");
    let limit = Tower(ConcurrencyLimitLayer::new(2));
    assert_eq!(most_at_once(2, |r| r.with_middleware(limit)).await, 2);
    let limit = Tower(GlobalConcurrencyLimitLayer::new(3));
    assert_eq!(most_at_once(3, |r| r.with_middleware(limit)).await, 3);
    let limit = tower::ServiceBuilder::new()
        .layer(BufferLayer::<Delivery>::new(2))
        .layer(ConcurrencyLimitLayer::new(2));
    let limit = Tower(limit);
    assert_eq!(most_at_once(2, |r| r.with_middleware(limit)).await, 2);
}

#[tokio::test]
async fn a_global_limit_holds_for_all_routers_that_share_it() {
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let (entered, mut entering) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let router = || {
        let (entered, release) = (entered.clone(), Arc::clone(&release));
        let handler = move |order: Placed| {
            let (entered, release) = (entered.clone(), Arc::clone(&release));
            async move {
                let _ = entered.send(order.id);
                release.acquire().await.unwrap().forget();
            }
        };
        let router = Router::new().on(handler);
        router.with_middleware(Tower(limit.clone()))
    };
    let first = tokio::spawn(call(router(), delivery(1)));
    assert_eq!(entering.recv().await, Some(1));
    let mut second = std::pin::pin!(call(router(), delivery(2)));
    assert!(
        futures_util::future::poll_immediate(second.as_mut())
            .await
            .is_none()
    );
    assert!(entering.try_recv().is_err(), "the permit is taken");
    release.add_permits(2);
    assert_eq!(first.await.unwrap(), Outcome::Ack);
    assert_eq!(second.await, Outcome::Ack);
    assert_eq!(entering.recv().await, Some(2));
}

/// Tries a failed call again, at once.
#[derive(Clone)]
struct Again(usize);

impl Policy<Delivery, Outcome, Infallible> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Delivery,
        result: &mut Result<Outcome, Infallible>,
    ) -> Option<Self::Future> {
        self.0 = self.0.checked_sub(1)?;
        matches!(result, Ok(Outcome::Retry { .. })).then(|| ready(()))
    }

    fn clone_request(&mut self, delivery: &Delivery) -> Option<Delivery> {
        Some(delivery.clone())
    }
}

#[tokio::test]
async fn a_layer_cannot_call_a_handler_twice() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let fails = move |_: Placed| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>("jammed") }
    };
    let router = Router::new()
        .on(fails)
        .with_middleware(Tower(RetryLayer::new(Again(3))));
    let outcome = call(router, delivery(1)).await;
    let twice = "a tower layer called the handler twice, or on another task";
    assert_eq!(outcome, Outcome::retry(twice));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn load_shedding_fails_an_attempt_unless_a_rule_puts_it_off() {
    let permits = Arc::new(Semaphore::new(1));
    let layer = || {
        tower::ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(
                &permits,
            )))
    };
    let router = || Router::new().on(placed).with_middleware(Tower(layer()));
    let puts_off = |_: &Overloaded| Some(Outcome::snooze(SOON));
    assert_eq!(call(router(), delivery(1)).await, Outcome::Ack);
    let _taken = permits.acquire().await.unwrap();
    assert_eq!(
        call(router(), delivery(1)).await,
        Outcome::retry("service overloaded")
    );
    assert_eq!(
        call(router().on_cause(puts_off), delivery(1)).await,
        Outcome::snooze(SOON)
    );
}

#[tokio::test]
async fn layers_and_functions_nest_in_the_order_of_adding() {
    let (sender, mut lines) = mpsc::unbounded_channel();
    let note = |name: &'static str| {
        let sender = sender.clone();
        move |delivery: Delivery, next: Next| {
            let _ = sender.send(name);
            next.run(delivery)
        }
    };
    let inner = Router::new()
        .on(placed)
        .with_middleware(Tower(TimeoutLayer::new(PATIENCE)))
        .with_middleware(note("third"));
    let router = Router::new()
        .with_middleware(note("first"))
        .with_middleware(Tower(BufferLayer::<Delivery>::new(1)))
        .with_middleware(note("second"))
        .merge(inner);
    assert_eq!(call(router, delivery(1)).await, Outcome::Ack);
    drop(sender);
    let mut order = Vec::new();
    while let Ok(name) = lines.try_recv() {
        order.push(name);
    }
    assert_eq!(order, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_layer_runs_around_each_message_of_a_batch() {
    let test = TestBus::start("billing").await;
    let (sender, mut batches) = mpsc::unbounded_channel();
    let store = move |orders: Batch<Placed>| {
        let _ = sender.send(orders.len());
        async {}
    };
    let router = Router::new()
        .on_batch(store)
        .with_middleware(Tower(TimeoutLayer::new(PATIENCE)))
        .with_middleware(Tower(ConcurrencyLimitLayer::new(2)));
    let bus = test.container().bus();
    let sent: Vec<_> = (0..4).map(|id| Placed { id }).collect();
    for published in bus.send_all(&ORDERS, &sent).await {
        published.unwrap();
    }
    let options = SubscribeOptions::new()
        .with_batch(4, PATIENCE)
        .with_concurrency(1);
    bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    test.settle().await;
    assert_eq!(
        (batches.recv().await, batches.recv().await),
        (Some(2), Some(2))
    );
    assert!(letters(&test).await.is_empty());
}
