//! Publishing.

use redstart::{Container, Envelope, Topic};

use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, batch_of};

pub(super) fn envelope(id: u64, size: usize) -> Envelope {
    Envelope::new("order.placed", &Order::new(id, size)).expect("encodes")
}

pub(crate) async fn publish_all(server: &Server, topic: &Topic, count: u64, size: usize) -> Spent {
    let container = server.container(topic).await;
    let meter = Meter::start(server);
    publish(&container, topic, count, size).await;
    meter.stop()
}

/// Publishes in batches.
pub(crate) async fn publish(container: &Container, topic: &Topic, count: u64, size: usize) {
    let (bus, batch) = (container.bus(), batch_of(size));
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let all: Vec<Envelope> = (next..end).map(|id| envelope(id, size)).collect();
        for result in bus.publish_all(topic, &all).await {
            result.expect("published");
        }
        next = end;
    }
}

/// Publishes one by one, from many tasks.
pub(crate) async fn publish_tasks(
    server: &Server,
    topic: &Topic,
    count: u64,
    size: usize,
    tasks: u64,
) -> Spent {
    let container = server.container(topic).await;
    let meter = Meter::start(server);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (bus, topic) = (container.bus(), topic.clone());
        running.spawn(async move {
            for id in 0..count / tasks {
                bus.publish(&topic, &envelope(id, size))
                    .await
                    .expect("published");
            }
        });
    }
    running.join_all().await;
    meter.stop()
}
