//! Publishing, consuming, and both at once.

use crate::bench::Bench;
use crate::pair::Side;
use crate::work::SIZE;
use crate::{ours, raw};

const RATE: &str = "messages/s";
/// Instead of a number of handlers: one that takes up to 500 messages at once.
const BATCHES: usize = 0;

pub(super) async fn publishing(bench: &mut Bench) {
    let Bench {
        server,
        report,
        options,
    } = bench;
    for (name, count, size) in [
        ("publish_all", 200_000, SIZE),
        ("publish_all/100B", 200_000, 100),
        ("publish_all/1KiB", 100_000, 1024),
        ("publish_all/64KiB", 4_000, 65_536),
    ] {
        let count = options.count(count);
        report
            .measure([(name, RATE)], async |side| {
                let topic = server.fresh_topic();
                let spent = match side {
                    Side::Ours => ours::publish_all(server, &topic, count, size).await,
                    Side::Raw => raw::publish_all(server, &topic, count, size).await,
                };
                server.drop_topic(&topic);
                [spent.rate(count)]
            })
            .await;
    }
    for (name, count, size) in [
        ("publish/64-tasks", 100_000, SIZE),
        ("publish/64-tasks/100B", 100_000, 100),
        ("publish/64-tasks/1KiB", 100_000, 1024),
        ("publish/64-tasks/64KiB", 4_000, 65_536),
    ] {
        let count = options.count(count);
        report
            .measure([(name, RATE)], async |side| {
                let topic = server.fresh_topic();
                let spent = match side {
                    Side::Ours => ours::publish_tasks(server, &topic, count, size, 64).await,
                    Side::Raw => raw::publish_tasks(server, &topic, count, size, 64).await,
                };
                server.drop_topic(&topic);
                [spent.rate(count)]
            })
            .await;
    }
}

pub(super) async fn consuming(bench: &mut Bench) {
    let Bench {
        server,
        report,
        options,
    } = bench;
    for (name, count, size, concurrency) in [
        ("consume/1", 100_000, SIZE, 1),
        ("consume/64", 200_000, SIZE, 64),
        ("consume/1024", 200_000, SIZE, 1024),
        ("consume/64/100B", 200_000, 100, 64),
        ("consume/64/1KiB", 100_000, 1024, 64),
        ("consume/64/64KiB", 4_000, 65_536, 64),
        ("consume/batches", 200_000, SIZE, BATCHES),
    ] {
        let count = options.count(count);
        report
            .measure([(name, RATE)], async |side| {
                let topic = server.fresh_topic();
                raw::publish_all(server, &topic, count, size).await;
                let spent = match side {
                    Side::Ours if concurrency == BATCHES => {
                        ours::consume_batches(server, &topic, count).await
                    }
                    Side::Ours => ours::consume(server, &topic, count, concurrency).await,
                    Side::Raw => raw::consume(server, &topic, count).await,
                };
                server.drop_topic(&topic);
                [spent.rate(count)]
            })
            .await;
    }
}

pub(super) async fn both(bench: &mut Bench) {
    let count = bench.options.count(200_000);
    let figures = [
        ("both", RATE),
        ("both/server-cpu", "µs/message"),
        ("both/client-cpu", "µs/message"),
    ];
    let server = &bench.server;
    bench
        .report
        .measure(figures, async |side| {
            let topic = server.fresh_topic();
            let spent = match side {
                Side::Ours => ours::both(server, &topic, count).await,
                Side::Raw => raw::both(server, &topic, count).await,
            };
            server.drop_topic(&topic);
            [
                spent.rate(count),
                spent.server_cost(count),
                spent.client_cost(count),
            ]
        })
        .await;
}
