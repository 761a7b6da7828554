//! Coordinators that panic.

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Subscription, container::Coordinator, memory::MemoryStore,
    ports::BoxFuture,
};

use crate::HOUR;
use crate::support::{group, status, topic};

/// A coordinator that panics in one of its functions.
struct Part {
    name: &'static str,
    panics: &'static str,
}

impl Coordinator for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn std::error::Error + Send + Sync>>> {
        assert_ne!(self.panics, "start", "no table");
        Box::pin(async move {
            let handler = |_: Payload<u32>, _: Delivery| async {};
            let bus = container.bus();
            Ok(vec![bus.subscribe(&topic(self.name), handler).await?])
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { assert_ne!(self.panics, "stop", "no table") })
    }
}

fn part(name: &'static str, panics: &'static str) -> Part {
    Part { name, panics }
}

/// How many consumers the group of a topic has.
async fn consumers(store: &MemoryStore, on: &str) -> u64 {
    let builder = Container::builder().with_memory(store.clone());
    let look = builder.connect().await.unwrap();
    status(&look, &topic(on), &group("redstart"))
        .await
        .consumers as u64
}

#[tokio::test]
async fn a_coordinator_that_panics_in_stop_keeps_no_other_from_stopping() {
    let store = MemoryStore::new();
    let container = Container::builder()
        .with_memory(store.clone())
        .with_coordinator(part("first", "never"))
        .with_coordinator(part("second", "stop"))
        .connect()
        .await
        .unwrap();
    let free = topic("free");
    let _free = container
        .bus()
        .subscribe(&free, |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap();
    let report = container.shutdown(HOUR).await;
    assert!(!report.is_clean());
    assert_eq!(report.subscriptions.len(), 3);
    let failed = report.failed_coordinators.join("; ");
    assert!(
        failed.starts_with("coordinator second: it panicked"),
        "{failed}"
    );
    for name in ["first", "second", "free"] {
        assert_eq!(consumers(&store, name).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_coordinator_that_panics_in_start_is_an_error_and_the_others_are_stopped() {
    let store = MemoryStore::new();
    let connecting = Container::builder()
        .with_memory(store.clone())
        .with_coordinator(part("first", "never"))
        .with_coordinator(part("second", "start"))
        .connect();
    let error = connecting.await.unwrap_err();
    assert_eq!(error.kind(), redstart::ErrorKind::Coordinator);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("panicked"), "{cause}");
    assert_eq!(consumers(&store, "first").await, 0);
}
