//! What an owned group costs the server, beside a shared group of the same work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::{Delivery, SubscribeOptions, Topic};

use crate::bench::Bench;
use crate::meter::{Meter, Spent};
use crate::pair::Side;
use crate::server::Server;
use crate::work::{Order, SIZE};
use crate::{ours, raw};

/// Reading and settling with 10, 100 and 250 handlers at once, which take as many messages at once.
pub(super) async fn consuming(bench: &mut Bench) {
    for (handlers, names) in [
        (10, ["owned/10", "owned/10/server-cpu"]),
        (100, ["owned/100", "owned/100/server-cpu"]),
        (250, ["owned/250", "owned/250/server-cpu"]),
    ] {
        let figures = [(names[0], "messages/s"), (names[1], "µs/message")];
        if !bench.options.wants_any_long(&figures) {
            continue;
        }
        let count = bench.options.count(200_000);
        let server = &bench.server;
        bench
            .report
            .measure(figures, async |side| {
                let topic = server.fresh_topic();
                raw::publish_all(server, &topic, count, SIZE).await;
                let spent = consume(server, &topic, (count, handlers), side).await;
                server.flush();
                [spent.rate(count), spent.server_cost(count)]
            })
            .await;
    }
}

async fn consume(
    server: &Server,
    topic: &Topic,
    (count, handlers): (u64, usize),
    side: Side,
) -> Spent {
    let container = server.container(topic).await;
    let handled: Arc<AtomicU64> = Arc::default();
    let counted = Arc::clone(&handled);
    let options = SubscribeOptions::new()
        .with_concurrency(handlers)
        .with_prefetch(handlers);
    let options = match side {
        Side::Ours => options.with_ownership(Ownership::new()),
        Side::Raw => options,
    };
    let handler = move |_: Payload<Order>, _: Delivery| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    };
    let meter = Meter::start(server);
    let _subscription = container
        .bus()
        .subscribe_with(topic, options, handler)
        .await
        .expect("subscribed");
    ours::wait_for(&handled, count).await;
    ours::drained(&container, topic, 0).await;
    let spent = meter.stop();
    ours::finish(container).await;
    assert_eq!(handled.load(Ordering::Relaxed), count);
    spent
}
