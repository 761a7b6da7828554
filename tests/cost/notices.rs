//! What the server tells the processes that listen.

use std::sync::Arc;

use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Container, SubscribeOptions};
use tokio::sync::Semaphore;

use crate::ALONE;
use crate::support::{Server, builder, drained, finish, group, publish, topic, until};

const LISTENING: usize = 5;
const PUBLISHED: u32 = 200;

/// How many bytes the server has sent.
fn sent(server: &Server) -> u64 {
    let stats: String = server.command(&["INFO", "stats"]);
    let mut lines = stats.lines();
    let sent = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    sent.unwrap().parse().unwrap()
}

/// Containers that listen, each with one subscription that has room for one message at a time. It handles as
/// many messages as there are permits.
async fn listening(server: &Server) -> (Vec<Container>, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let mut containers = Vec::new();
    for number in 0..LISTENING {
        let container = builder(server).connect().await.unwrap();
        let options = SubscribeOptions::new()
            .with_reading(Reading::Shared)
            .with_group(group(&format!("group-{number}")))
            .with_concurrency(1)
            .with_prefetch(1);
        let permits = Arc::clone(&permits);
        let handler = move |_: Payload<u32>| {
            let permits = Arc::clone(&permits);
            async move { permits.acquire_owned().await.unwrap().forget() }
        };
        let (bus, orders) = (container.bus(), topic("orders"));
        let _ = bus.subscribe_with(&orders, options, handler).await.unwrap();
        containers.push(container);
    }
    until("all to listen, and none to read by itself", async || {
        let clients: String = server.command(&["CLIENT", "LIST"]);
        let count = |name| clients.matches(name).count();
        (count("name=redstart:bell") == LISTENING && count("name=redstart:sub") == 0).then_some(())
    })
    .await;
    (containers, permits)
}

/// Publishes messages one by one, and returns how many bytes the server sent to all connections.
async fn told(server: &Server, on: &str) -> u64 {
    let publisher = builder(server).connect().await.unwrap();
    publish(&publisher, &topic(on), 0..1).await;
    let before = sent(server);
    for number in 0..PUBLISHED {
        publish(&publisher, &topic(on), number..number + 1).await;
    }
    let told = sent(server) - before;
    finish(publisher).await;
    println!("{on}: {} bytes a message", told / u64::from(PUBLISHED));
    told
}

/// A notice to each of five processes would take some 300 bytes a message, and the answers to publishing take 21.
const FEW: u64 = 100 * PUBLISHED as u64;

#[tokio::test]
async fn the_server_tells_a_process_only_of_topics_that_it_reads() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let (containers, _permits) = listening(&server).await;
    let told = told(&server, "others").await;
    assert!(told <= FEW, "{told} bytes");
    for container in containers {
        finish(container).await;
    }
}

#[tokio::test]
async fn the_server_tells_a_process_that_has_no_room_once_and_it_reads_on_when_it_has() {
    let _alone = ALONE.lock().await;
    let server = Server::start();
    let (containers, permits) = listening(&server).await;
    // Everybody has as much as there is room for.
    publish(&containers[0], &topic("orders"), 0..10).await;
    let told = told(&server, "orders").await;
    assert!(told <= FEW, "{told} bytes");
    permits.add_permits(10_000);
    for (number, container) in containers.into_iter().enumerate() {
        let group = group(&format!("group-{number}"));
        drained(&container, &topic("orders"), &group).await;
        finish(container).await;
    }
}
