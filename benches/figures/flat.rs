//! Whether the cost of a message stays the same when there is much of everything. The other side
//! is the small case of the same work.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use redstart::Topic;

use crate::bench::Bench;
use crate::meter::{Meter, Spent};
use crate::pair::Side;
use crate::server::Server;
use crate::work::SIZE;
use crate::{ours, raw};

const RATE: &str = "messages/s";

/// Publishing to and consuming from a topic that holds five million messages.
pub(super) async fn backlog(bench: &mut Bench) {
    let names = ["flat/backlog/publish", "flat/backlog/consume"];
    if !names.iter().any(|name| bench.options.wants_long(name)) {
        return;
    }
    let (many, few) = (bench.options.count(5_000_000), bench.options.count(200_000));
    let server = &bench.server;
    let full = server.fresh_topic();
    raw::publish_all(server, &full, many, SIZE).await;
    bench
        .report
        .measure(names.map(|name| (name, RATE)), async |side| {
            let fresh = server.fresh_topic();
            let topic = match side {
                Side::Ours => &full,
                Side::Raw => &fresh,
            };
            let published = ours::publish_all(server, topic, few, SIZE).await;
            let consumed = consume_some(server, topic, few).await;
            server.drop_topic(&fresh);
            [published.rate(few), consumed.rate(few)]
        })
        .await;
    server.flush();
}

/// Consumes at least as many, and leaves the rest.
async fn consume_some(server: &Server, topic: &Topic, count: u64) -> Spent {
    let container = server.container(topic).await;
    let handled = Arc::default();
    let meter = Meter::start(server);
    ours::counting(&container, topic, 64, &handled).await;
    ours::wait_for(&handled, count).await;
    let spent = meter.stop();
    ours::finish(container).await;
    spent
}

/// Consuming while 50,000 retries wait for their time.
pub(super) async fn waiting(bench: &mut Bench) {
    let name = "flat/retries-waiting";
    if !bench.options.wants_long(name) {
        return;
    }
    let (waiting, count) = (bench.options.count(50_000), bench.options.count(200_000));
    let server = &bench.server;
    bench
        .report
        .measure([(name, RATE)], async |side| {
            let topic = server.fresh_topic();
            if side == Side::Ours {
                let container = server.container(&topic).await;
                raw::publish_all(server, &topic, waiting, SIZE).await;
                ours::park(&container, &topic, waiting).await;
                ours::finish(container).await;
            }
            raw::publish_all(server, &topic, count, SIZE).await;
            let spent = consume_some(server, &topic, count).await;
            server.flush();
            [spent.rate(count)]
        })
        .await;
}

/// Publishing to and consuming from a hundred topics at once, beside one topic.
pub(super) async fn topics(bench: &mut Bench) {
    let figures = [
        ("flat/topics", RATE),
        ("flat/topics/server-cpu", "µs/message"),
        ("flat/topics/client-cpu", "µs/message"),
    ];
    if !bench.options.wants_any_long(&figures) {
        return;
    }
    let count = bench.options.count(400_000);
    let server = &bench.server;
    bench
        .report
        .measure(figures, async |side| {
            let topics: Vec<Topic> = match side {
                Side::Ours => (0..100).map(|_| server.fresh_topic()).collect(),
                Side::Raw => vec![server.fresh_topic()],
            };
            let spent = over(server, &topics, count).await;
            server.flush();
            [
                spent.rate(count),
                spent.server_cost(count),
                spent.client_cost(count),
            ]
        })
        .await;
}

/// Publishes in batches to one topic after the other, and consumes them all at once.
async fn over(server: &Server, topics: &[Topic], count: u64) -> Spent {
    let container = server.connect().await;
    let handled: Arc<AtomicU64> = Arc::default();
    for topic in topics {
        ours::counting(&container, topic, 64, &handled).await;
    }
    let batch = crate::work::batch_of(SIZE);
    let meter = Meter::start(server);
    for number in 0..count / batch {
        let topic = &topics[number as usize % topics.len()];
        ours::publish(&container, topic, batch, SIZE).await;
    }
    ours::wait_for(&handled, count).await;
    let spent = meter.stop();
    ours::finish(container).await;
    spent
}
