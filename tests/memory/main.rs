//! The store in memory: what it shares, its clock, batches, sweeps, shutdowns and coordinators.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod clock;
mod coordinators;

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Envelope, Outcome, Placement,
    dead_letters::Sweep,
    kv::{Once, OnceOptions, once_with},
    memory::MemoryStore,
};
use support::{finish, group, letters, next, some, topic, until};
use tokio::sync::mpsc;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_emptied_store_gets_its_groups_back() {
    let store = MemoryStore::new();
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_memory(store.clone()).connect().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    for n in 0..3 {
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
        assert_eq!(next(&mut received).await, n);
        store.clear();
    }
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    finish(container).await;
}

/// A loop that never has to wait would keep its thread from the consumers.
#[tokio::test]
async fn a_publisher_in_a_loop_lets_consumers_work_on_the_same_thread() {
    let container = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    let mut published = 0;
    while received.is_empty() {
        let envelope = Envelope::new("n", &published).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
        published += 1;
        assert!(published < 1_000_000, "the consumer had no turn");
    }
    some(&mut received, published as usize).await;
    finish(container).await;
}

#[tokio::test]
async fn namespaces_share_nothing_and_containers_of_one_share_all() {
    let store = MemoryStore::new();
    let connect = async |name: &str| {
        let namespace = redstart::Namespace::new(name).unwrap();
        let builder = Container::builder().with_namespace(namespace);
        builder.with_memory(store.clone()).connect().await.unwrap()
    };
    let (one, two, other) = (
        connect("shop").await,
        connect("shop").await,
        connect("bank").await,
    );
    let envelope = Envelope::new("n", &7).unwrap();
    let orders = topic("orders");
    one.bus().publish(&orders, &envelope).await.unwrap();
    one.kv()
        .port()
        .set_bytes(vec![("k", "1".into())], None)
        .await
        .unwrap();
    assert_eq!(two.topics().get(&orders).await.unwrap().unwrap().entries, 1);
    assert!(two.kv().exists("k").await.unwrap());
    assert_eq!(other.topics().get(&orders).await.unwrap(), None);
    assert!(!other.kv().exists("k").await.unwrap());
}

#[tokio::test]
async fn a_message_that_a_sweep_publishes_is_never_a_duplicate() {
    let container = Container::builder()
        .with_service(group("billing"))
        .with_deduplication(HOUR)
        .with_memory(MemoryStore::new())
        .connect()
        .await
        .unwrap();
    let (bus, orders, billing) = (container.bus(), topic("orders"), group("billing"));
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let came = sender.send(n);
        async move {
            came.unwrap();
            Outcome::dead_letter("never")
        }
    };
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    bus.publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut received).await, 7);
        let letter = until("it to die", async || {
            letters(&container, &orders, &billing).await.pop()
        })
        .await;
        // Back to the topic that it came from, which has seen its id before.
        let sweep = Sweep::publish(orders.clone(), letter.id);
        let dead = container.dead_letters();
        let swept = dead.sweep(&orders, &billing, sweep, &|_| {}).await.unwrap();
        assert_eq!(swept.progress.taken, 1);
    }
    assert_eq!(next(&mut received).await, 7);
    finish(container).await;
}

/// A function that blocks its thread keeps its claim: another thread extends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_function_that_blocks_its_thread_keeps_its_claim() {
    let kv = MemoryStore::new().kv(None);
    let lease = Duration::from_secs(1);
    let options = OnceOptions::new(Duration::from_secs(60)).with_lease(lease);
    let blocking = tokio::spawn({
        let kv = kv.clone();
        async move {
            let function = async || {
                std::thread::sleep(lease * 2);
                tokio::time::sleep(lease / 10).await;
                std::thread::sleep(lease * 2);
                Ok::<_, std::io::Error>(1)
            };
            once_with(&kv, "charge", options, function).await
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(lease * 3 / 2).await;
        let looked = once_with(&kv, "charge", options, async || Ok::<_, std::io::Error>(2)).await;
        assert_eq!(looked.unwrap(), Once::InProgress);
    }
    assert_eq!(blocking.await.unwrap().unwrap(), Once::Executed(1));
}

#[tokio::test]
async fn a_handler_that_shuts_its_container_down_does_not_wait_for_itself() {
    let container = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let inner = container.clone();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |_: Payload<u32>, _: Delivery| {
            let (container, sender) = (inner.clone(), sender.clone());
            async move {
                let report = container.shutdown(HOUR).await;
                let _ = sender.send(report);
            }
        })
        .await
        .unwrap();
    let envelope = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert!(next(&mut received).await.subscriptions.is_empty());
    // The handler has finished, so its delivery is acknowledged.
    assert!(container.shutdown(HOUR).await.is_clean());
    let error = container.bus().publish(&orders, &envelope).await;
    assert_eq!(error.unwrap_err().kind(), redstart::ErrorKind::Closed);
    let group = container.topics().groups(&orders).await.unwrap().remove(0);
    assert_eq!((group.in_flight, group.lag), (0, 0), "{group:?}");
}

#[tokio::test]
async fn a_handler_that_shuts_another_container_down_waits_for_it_and_gets_its_report() {
    let container = Container::in_memory().await.unwrap();
    let other = Container::in_memory().await.unwrap();
    let orders = topic("orders");
    let envelope = Envelope::new("n", &7).unwrap();
    let (began, mut begun) = mpsc::unbounded_channel();
    let until_cancelled = move |_: Payload<u32>, delivery: Delivery| {
        let _ = began.send(());
        async move { delivery.cancelled().await }
    };
    let subscribed = other.bus().subscribe(&orders, until_cancelled).await;
    subscribed.unwrap();
    other.bus().publish(&orders, &envelope).await.unwrap();
    next(&mut begun).await;

    let (sender, mut received) = mpsc::unbounded_channel();
    let shuts_down = move |_: Payload<u32>| {
        let (other, sender) = (other.clone(), sender.clone());
        async move {
            let report = other.shutdown(Duration::from_millis(10)).await;
            let _ = sender.send(report);
        }
    };
    let subscribed = container.bus().subscribe(&orders, shuts_down).await;
    subscribed.unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    let report = next(&mut received).await;
    assert_eq!(report.subscriptions.len(), 1, "{report}");
    assert!(!report.is_clean(), "its handler still ran");
    assert!(container.shutdown(HOUR).await.is_clean());
}

#[tokio::test]
async fn the_other_placement_is_refused() {
    let store = MemoryStore::new();
    let builder = || Container::builder().with_memory(store.clone());
    let shop = || builder().with_namespace("shop");
    let together = |builder: redstart::container::ContainerBuilder| {
        builder.with_placement(Placement::Together).connect()
    };
    let first = together(shop()).await.unwrap();
    let placement = first.store().inspect().placement().await.unwrap();
    assert_eq!(placement, Some(Placement::Together));
    shop().connect().await.unwrap();
    let spread = shop().with_placement(Placement::Spread).connect().await;
    assert_eq!(
        spread.unwrap_err().to_string(),
        "setup: namespace \"shop\" was set up with placement together, not spread; choose another \
         namespace or leave the placement out"
    );
    // A namespace that is set up without one is spread, and one without a name is never together.
    let office = || builder().with_namespace("office");
    office().connect().await.unwrap();
    assert!(together(office()).await.is_err());
    assert!(together(builder()).await.is_err());
    store.clear();
    together(office()).await.unwrap();
}
