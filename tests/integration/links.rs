//! A slow link, and a proxy that closes idle connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, SubscribeOptions};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{
    Server, builder, container, drained, finish, group, next, publish, some, topic, until,
};

const MIB: usize = 1024 * 1024;

/// What a proxy does to the traffic.
#[derive(Clone, Copy)]
struct Kind {
    /// Bytes a second, from the server and to it.
    rate: Option<usize>,
    /// Closes a connection on which the server has sent nothing for this long.
    idle: Option<Duration>,
}

/// Passes everything on, between a client and the server.
struct Proxy {
    url: String,
    closed: Arc<AtomicU64>,
}

impl Proxy {
    fn before(server: &Server, kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let closed = Arc::<AtomicU64>::default();
        let (counter, port) = (Arc::clone(&closed), server.port());
        // Ends with the process; its connections end with the server.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                server.set_read_timeout(kind.idle).unwrap();
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    if pass_on(server, client, kind.rate) {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                });
                thread::spawn(move || pass_on(up, down, kind.rate));
            }
        });
        Self { url, closed }
    }
}

/// Copies until one side ends or is idle for too long. Returns whether it was idle.
fn pass_on(mut from: TcpStream, mut to: TcpStream, rate: Option<usize>) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    let idle = loop {
        match from.read(&mut buffer) {
            Ok(length @ 1..) => {
                if to.write_all(&buffer[..length]).is_err() {
                    break false;
                }
                if let Some(rate) = rate {
                    thread::sleep(Duration::from_secs_f64(length as f64 / rate as f64));
                }
            }
            Err(error) => {
                break matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
            Ok(0) => break false,
        }
    };
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    idle
}

const SLOW: Kind = Kind {
    rate: Some(MIB),
    idle: None,
};

fn large(count: u32) -> Vec<Envelope> {
    let text = "x".repeat(900 * 1024);
    let envelope = |n| Envelope::new("n", &(n, &text)).unwrap();
    (0..count).map(envelope).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_come_through_a_slow_link() {
    let server = Server::start();
    let direct = container(&server).await;
    let orders = topic("orders");
    for published in direct.bus().publish_all(&orders, &large(16)).await {
        published.unwrap();
    }
    let proxy = Proxy::before(&server, SLOW);
    let slow = builder(&server).with_redis_url(&proxy.url);
    let slow = slow.connect().await.unwrap();
    let (sender, mut received) = unbounded_channel();
    let handler = move |Payload((n, _)): Payload<(u32, String)>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async {}
    };
    // The first read asks for all of them: 14 seconds at this rate.
    let options = SubscribeOptions::new().with_concurrency(16);
    let subscription = slow.bus().subscribe_with(&orders, options, handler).await;
    let subscription = subscription.unwrap();
    let all = some(&mut received, 16).await;
    assert_eq!(all, (0..16).map(|n| (n, 1)).collect::<Vec<_>>());
    assert_eq!(subscription.problem(), None);
    drained(&direct, &orders, &group("billing")).await;
    finish(slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_of_a_dead_consumer_are_taken_over_and_published_on_a_slow_link() {
    let server = Server::start();
    let direct = container(&server).await;
    let orders = topic("orders");
    for published in direct.bus().publish_all(&orders, &large(8)).await {
        published.unwrap();
    }
    let lease = SubscribeOptions::new().with_lease(Duration::from_secs(1));
    let (sender, mut began) = unbounded_channel();
    let dead = tokio::runtime::Runtime::new().unwrap();
    let crashing = builder(&server);
    let options = lease.clone();
    let holder = dead.spawn(async move {
        let container = crashing.connect().await.unwrap();
        let handler = move |_: Delivery| {
            let _ = sender.send(());
            std::future::pending::<()>()
        };
        let bus = container.bus();
        let _held = bus.subscribe_with(&topic("orders"), options, handler).await;
        std::future::pending::<()>().await;
    });
    for _ in 0..8 {
        next(&mut began).await;
    }
    dead.shutdown_background();
    drop(holder);

    let proxy = Proxy::before(&server, SLOW);
    let slow = builder(&server).with_redis_url(&proxy.url);
    let slow = slow.connect().await.unwrap();
    let (sender, mut received) = unbounded_channel();
    let handler = move |Payload((n, _)): Payload<(u32, String)>| {
        let _ = sender.send(n);
        async {}
    };
    let subscription = slow.bus().subscribe_with(&orders, lease, handler).await;
    subscription.unwrap();
    // Seven seconds in one reply.
    some(&mut received, 8).await;
    drained(&direct, &orders, &group("billing")).await;
    // And as many in one write.
    for published in slow.bus().publish_all(&orders, &large(8)).await {
        published.unwrap();
    }
    finish(slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_closes_idle_connections_is_not_a_fault() {
    let server = Server::start();
    let kind = Kind {
        rate: None,
        idle: Some(Duration::from_millis(300)),
    };
    let proxy = Proxy::before(&server, kind);
    let container = builder(&server).with_redis_url(&proxy.url);
    let container = container.connect().await.unwrap();
    let (sender, mut received) = unbounded_channel();
    let handler = move |Payload(n): Payload<u32>| {
        let _ = sender.send(n);
        async {}
    };
    let orders = topic("orders");
    let subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    let began = Instant::now();
    until("the proxy to close ten idle connections", async || {
        let health = container.health().await;
        assert!(health.ok, "after {:?}: {health:?}", began.elapsed());
        (proxy.closed.load(Ordering::SeqCst) > 10).then_some(())
    })
    .await;
    publish(&container, &orders, 0..3).await;
    // Several handlers run at once, on two threads: their order says nothing.
    assert_eq!(some(&mut received, 3).await, [0, 1, 2]);
    assert_eq!(subscription.problem(), None);
    finish(container).await;
}
