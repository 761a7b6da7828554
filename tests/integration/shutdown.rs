//! Subscriptions that are shut down.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Container, Delivery, SubscribeOptions};
use tokio::sync::mpsc;

use crate::support::{
    PATIENCE, Server, container, group, next, publish, signal, topic, watch_stalls,
};

#[tokio::test]
async fn a_handler_that_blocks_its_thread_cannot_delay_the_shutdown() {
    let server = Server::start();
    let (url, mut raw) = (server.url(), server.raw());
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let report = runtime.block_on(async {
            let container = Container::builder()
                .with_redis_url(url)
                .with_service(group("billing"))
                .connect()
                .await
                .unwrap();
            // Before: while a handler blocks its thread the runtime may not look for replies.
            publish(&container, &topic("orders"), 0..1).await;
            let (begun, mut told) = mpsc::unbounded_channel();
            let options = SubscribeOptions::new().with_concurrency(1);
            let _subscription = container
                .bus()
                .subscribe_with(
                    &topic("orders"),
                    options,
                    move |_: Payload<u32>, _: Delivery| {
                        let _ = begun.send(());
                        async { std::thread::sleep(PATIENCE * 2) }
                    },
                )
                .await
                .unwrap();
            // From outside of the runtime: the handler's thread may be the one that watches the
            // sockets, and then nothing here is answered any more until a task is woken.
            redis::cmd("XADD")
                .arg(&["{orders}:log", "*", "json", r#"{"type":"n","payload":0}"#])
                .exec(&mut raw)
                .unwrap();
            next(&mut told).await;
            container.shutdown(Duration::from_millis(50)).await
        });
        // Its thread is left behind.
        runtime.shutdown_background();
        report
    });
    let report = tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(report.subscriptions[0].cancelled, 1, "{report:?}");
}

#[tokio::test]
async fn a_frozen_server_cannot_delay_the_shutdown_of_four_subscriptions() {
    let server = Server::start();
    let container = container(&server).await;
    for name in ["one", "two", "three", "four"] {
        let _subscription = container
            .bus()
            .subscribe(&topic(name), |_: Payload<u32>, _: Delivery| async {})
            .await
            .unwrap();
    }
    signal(server.pid(), "STOP");
    let stalls = watch_stalls();
    let began = std::time::Instant::now();
    let report = container.shutdown(Duration::from_secs(1)).await;
    let took = began.elapsed();
    signal(server.pid(), "CONT");
    assert_eq!(report.subscriptions.len(), 4);
    let limit = Duration::from_millis(3500) + stalls();
    assert!(took < limit, "{took:?}, at most {limit:?}");
}
