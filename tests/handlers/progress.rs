//! Handlers that hang can be seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use redstart::testing::TestBus;
use redstart::{RetryPolicy, Router, SubscribeOptions};
use tokio::sync::Notify;

use crate::{Cancelled, ORDERS, PATIENCE, Placed};

/// The metrics of the subscription. Taking them sets them to 0 until they are measured again.
fn take(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.filter_map(|(key, _, _, value)| {
        let value = match value {
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Counter(count) => count as f64,
            DebugValue::Histogram(_) => return None,
        };
        Some((key.key().name().to_owned(), value))
    })
    .collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "no end of waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn busy_slots_the_oldest_delivery_and_timeouts_are_measured() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test and all its tasks run on one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let test = TestBus::start("billing").await;
    let release = Arc::new(Notify::new());
    let waits = Arc::clone(&release);
    let slow = move |_: Placed| {
        let waits = Arc::clone(&waits);
        async move { waits.notified().await }
    };
    let hangs = |_: Cancelled| std::future::pending::<()>();
    let retry = RetryPolicy::fixed(Duration::from_secs(3600)).with_max_attempts(1);
    let timeout = redstart::handler::RouteOptions::new().with_timeout(Duration::from_millis(20));
    let router = Router::new().on(slow).on_with(timeout, hangs);
    let options = SubscribeOptions::new()
        .with_concurrency(3)
        .with_retry(retry);
    let bus = test.container().bus();
    let subscription = bus.subscribe_with(&ORDERS, options, router).await.unwrap();
    bus.send(&ORDERS, &Placed { id: 1 }).await.unwrap();
    bus.send(&ORDERS, &Cancelled { id: 2 }).await.unwrap();
    let mut timeouts = 0.0;
    until("the slow handler to be measured", || {
        let metrics = take(&snapshotter);
        let timed_out = metrics.get("redstart_handler_timeouts_total");
        timeouts += timed_out.copied().unwrap_or_default();
        metrics["redstart_slots"] == 3.0
            && metrics["redstart_busy_slots"] == 1.0
            && metrics["redstart_oldest_in_flight_seconds"] > 0.5
    })
    .await;
    assert_eq!(timeouts, 1.0);
    release.notify_one();
    until("nothing to be left", || {
        let metrics = take(&snapshotter);
        metrics["redstart_slots"] == 3.0
            && metrics["redstart_busy_slots"] == 0.0
            && metrics["redstart_oldest_in_flight_seconds"] == 0.0
    })
    .await;
    assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    assert_eq!(take(&snapshotter)["redstart_slots"], 0.0);
}
