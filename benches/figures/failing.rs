//! The cost of failures, beside a clean run, and of redriving dead letters.

use std::time::Duration;

use crate::bench::Bench;
use crate::pair::Side;
use crate::server::bench_group;
use crate::work::SIZE;
use crate::{ours, raw};

pub(super) async fn retries(bench: &mut Bench) {
    let Bench {
        server,
        report,
        options,
    } = bench;
    let (at_once, later) = (Duration::ZERO, Duration::from_millis(1));
    for (name, count, share, delay) in [
        ("retries/1%", 200_000, 100, at_once),
        ("retries/100%", 50_000, 1, at_once),
        ("retries/1%-delayed", 200_000, 100, later),
        ("retries/100%-delayed", 50_000, 1, later),
    ] {
        let count = options.count(count);
        let server_cpu = format!("{name}/server-cpu");
        let figures = [(name, "messages/s"), (&server_cpu, "µs/message")];
        report
            .measure(figures, async |side| {
                let topic = server.fresh_topic();
                raw::publish_all(server, &topic, count, SIZE).await;
                let share = match side {
                    Side::Ours => Some((share, delay)),
                    Side::Raw => None,
                };
                let spent = ours::consume_failing(server, &topic, count, share).await;
                server.drop_topic(&topic);
                [spent.rate(count), spent.server_cost(count)]
            })
            .await;
    }
}

pub(super) async fn redrive(bench: &mut Bench) {
    let count = bench.options.count(20_000);
    let server = &bench.server;
    bench
        .report
        .measure([("redrive", "dead letters/s")], async |side| {
            let (topic, group) = (server.fresh_topic(), bench_group());
            let container = server.container(&topic).await;
            raw::publish_all(server, &topic, count, SIZE).await;
            let ids = ours::fail_all(&container, &topic, &group, count).await;
            let spent = match side {
                Side::Ours => ours::redrive(server, &container, &topic, &group, &ids).await,
                Side::Raw => {
                    let lane = |name| format!("{{{topic}}}:group:{group}:{name}");
                    {
                        let (dead, bodies) = (lane("dead"), lane("dead:body"));
                        raw::redrive(server, &dead, &bodies, &lane("redo"), ids.len()).await
                    }
                }
            };
            ours::finish(container).await;
            server.flush();
            [spent.rate(count)]
        })
        .await;
}
