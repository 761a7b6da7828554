//! Connections that the server closed while they were idle in the pool.

use std::time::Duration;

use futures_util::future::join_all;
use redstart::{Container, Envelope, ErrorKind};

use crate::support::{Server, container, finish, publish, topic, until};

/// Makes as many connections as the pool holds.
async fn fill_the_pool(container: &Container) {
    let kv = container.kv();
    let calls = (0..64).map(|n| {
        let kv = kv.clone();
        async move { kv.set(&format!("k{n}"), &n).await.unwrap() }
    });
    join_all(calls).await;
}

async fn everything_works(container: &Container) {
    for n in 0..10 {
        container.kv().incr("n", 1).await.unwrap();
        let envelope = Envelope::new("n", &n).unwrap();
        container
            .bus()
            .publish(&topic("orders"), &envelope)
            .await
            .unwrap();
    }
    let health = container.health().await;
    assert!(health.ok, "{health:?}");
}

#[tokio::test]
async fn after_a_restart_no_operation_meets_a_dead_connection() {
    let mut server = Server::start();
    let container = container(&server).await;
    publish(&container, &topic("orders"), 0..1).await;
    fill_the_pool(&container).await;
    // Blocks the runtime's only thread: the runtime has not seen the closed sockets yet.
    server.restart();
    everything_works(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn beyond_the_servers_idle_timeout_no_operation_fails() {
    let server = Server::start_with(&["--timeout", "1"]);
    let container = container(&server).await;
    publish(&container, &topic("orders"), 0..1).await;
    fill_the_pool(&container).await;
    until("the server to close idle connections", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let clients: String = server.command(&["CLIENT", "LIST"]);
        (!clients.contains("name=redstart:")).then_some(())
    })
    .await;
    everything_works(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn without_a_server_nothing_is_sent_and_nothing_is_unknown() {
    let mut server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, 0..1).await;
    fill_the_pool(&container).await;
    server.kill();
    for n in 0..10 {
        let error = container.kv().incr("n", 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let envelope = Envelope::new("n", &n).unwrap();
        let error = container.bus().publish(&orders, &envelope).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let bus = container.bus();
    let subscribing = bus.subscribe(&orders, |_: redstart::extract::Payload<u32>| async {});
    let error = subscribing.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[test]
fn connections_of_a_runtime_that_has_ended_are_replaced() {
    let server = Server::start();
    let start = || tokio::runtime::Runtime::new().unwrap();
    let first = start();
    let container = first.block_on(async {
        let container = container(&server).await;
        fill_the_pool(&container).await;
        container
    });
    drop(first);
    start().block_on(everything_works(&container));
}
