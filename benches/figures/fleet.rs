//! What a message costs the server where many processes read one group of one topic.
//!
//! Redstart reads on the shared connection. The other side reads on connections of its own, with blocked
//! reads, as the first eight subscriptions of a container do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Container, Delivery, SubscribeOptions, Topic};

use crate::bench::Bench;
use crate::meter::{Meter, Spent};
use crate::ours;
use crate::pair::Side;
use crate::server::Server;
use crate::work::{Order, SIZE};

/// Processes have found out by then who reads first.
const WARM_UP: Duration = Duration::from_secs(5);

/// Ten and thirty processes, a hundred and five hundred messages a second, one by one.
pub(super) async fn consuming(bench: &mut Bench) {
    for (name, members, rate) in [
        ("fleet/10/100-a-second", 10, 100),
        ("fleet/10/500-a-second", 10, 500),
        ("fleet/30/100-a-second", 30, 100),
        ("fleet/30/500-a-second", 30, 500),
    ] {
        let figures = [(name, "µs/message")];
        if !bench.options.wants_any_long(&figures) {
            continue;
        }
        let count = rate * if bench.options.quick { 2 } else { 10 };
        let server = &bench.server;
        bench
            .report
            .measure(figures, async |side| {
                let spent = consume(server, members, rate, count, side).await;
                server.flush();
                [spent.server_cost(count)]
            })
            .await;
    }
}

async fn consume(server: &Server, members: usize, rate: u64, count: u64, side: Side) -> Spent {
    let topic = server.fresh_topic();
    let handled: Arc<AtomicU64> = Arc::default();
    let mut containers = Vec::new();
    for _ in 0..members {
        let container = server.container(&topic).await;
        let counted = Arc::clone(&handled);
        let handler = move |_: Payload<Order>, _: Delivery| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        let options = SubscribeOptions::new().with_reading(match side {
            Side::Ours => Reading::Shared,
            Side::Raw => Reading::Own,
        });
        let bus = container.bus();
        let subscribed = bus.subscribe_with(&topic, options, handler).await;
        let _subscription = subscribed.expect("subscribed");
        containers.push(container);
    }
    let publisher = server.container(&topic).await;
    let before = WARM_UP.as_secs() * rate;
    publish(&publisher, &topic, rate, before).await;
    ours::wait_for(&handled, before).await;
    let meter = Meter::start(server);
    publish(&publisher, &topic, rate, count).await;
    ours::wait_for(&handled, before + count).await;
    let spent = meter.stop();
    containers.push(publisher);
    for container in containers {
        ours::finish(container).await;
    }
    spent
}

/// Publishes one message after the other at a rate.
async fn publish(container: &Container, topic: &Topic, rate: u64, count: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    for _ in 0..count {
        ticks.tick().await;
        ours::publish(container, topic, 1, SIZE).await;
    }
}
