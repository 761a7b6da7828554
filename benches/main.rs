//! Redstart beside a raw loop of the same work, in the same run.
//!
//! `benches/run [--json] [--quick] [NAME…]`. Every figure is measured in pairs run in turn (ours, raw,
//! ours, raw, …) on a private redis-server; the median ratio and its spread are printed. Wall
//! times on a shared machine mean little; ratios within a run do.

mod cost;
mod ours;
mod raw;
mod report;
mod server;

use std::time::Duration;

use report::{Figure, Options, Pair};
use server::Server;

/// What is published and handled: about 200 bytes encoded.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Order {
    id: u64,
    customer: String,
    note: String,
}

impl Order {
    pub(crate) fn new(id: u64, size: usize) -> Self {
        Self {
            id,
            customer: "customer-4711".to_owned(),
            note: "n".repeat(size.saturating_sub(60)),
        }
    }
}

fn main() {
    let options = Options::parse(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&options));
}

async fn run(options: &Options) {
    let server = Server::start("everysec");
    let scale = if options.quick { 10 } else { 1 };
    let mut report = report::Report::new(options);

    for (name, count, size) in [
        ("publish_all", 200_000, 200),
        ("publish_all/1KiB", 100_000, 1024),
        ("publish_all/64KiB", 4_000, 65_536),
    ] {
        report
            .measure(name, "messages/s", async |side| {
                let count = count / scale;
                let topic = server.fresh_topic();
                let taken = match side {
                    Pair::Ours => ours::publish_all(&server, &topic, count, size).await,
                    Pair::Raw => raw::publish_all(&server, &topic, count, size).await,
                };
                server.drop_topic(&topic);
                Figure::rate(count, taken)
            })
            .await;
    }
    report
        .measure("publish/64-tasks", "messages/s", async |side| {
            let count = 100_000 / scale;
            let topic = server.fresh_topic();
            let taken = match side {
                Pair::Ours => ours::publish_tasks(&server, &topic, count, 64).await,
                Pair::Raw => raw::publish_tasks(&server, &topic, count, 64).await,
            };
            server.drop_topic(&topic);
            Figure::rate(count, taken)
        })
        .await;
    for (name, concurrency) in [("consume/1", 1), ("consume/64", 64), ("consume/1024", 1024)] {
        report
            .measure(name, "messages/s", async |side| {
                let count = if concurrency == 1 { 40_000 } else { 200_000 } / scale;
                let topic = server.fresh_topic();
                raw::publish_all(&server, &topic, count, 200).await;
                let taken = match side {
                    Pair::Ours => ours::consume(&server, &topic, count, concurrency).await,
                    Pair::Raw => raw::consume(&server, &topic, count).await,
                };
                server.drop_topic(&topic);
                Figure::rate(count, taken)
            })
            .await;
    }
    report
        .measure("both", "messages/s", async |side| {
            let count = 200_000 / scale;
            let topic = server.fresh_topic();
            let taken = match side {
                Pair::Ours => ours::both(&server, &topic, count).await,
                Pair::Raw => raw::both(&server, &topic, count).await,
            };
            server.drop_topic(&topic);
            Figure::rate(count, taken)
        })
        .await;
    report
        .measure("server-cpu/both", "µs/message", async |side| {
            let count = 200_000 / scale;
            let topic = server.fresh_topic();
            let before = server.cpu();
            match side {
                Pair::Ours => ours::both(&server, &topic, count).await,
                Pair::Raw => raw::both(&server, &topic, count).await,
            };
            let spent = server.cpu() - before;
            server.drop_topic(&topic);
            Figure::cost(spent.as_secs_f64() * 1e6 / count as f64)
        })
        .await;
    report
        .measure("client-cpu/both", "µs/message", async |side| {
            let count = 200_000 / scale;
            let topic = server.fresh_topic();
            let before = cost::cpu();
            match side {
                Pair::Ours => ours::both(&server, &topic, count).await,
                Pair::Raw => raw::both(&server, &topic, count).await,
            };
            let spent = cost::cpu() - before;
            server.drop_topic(&topic);
            Figure::cost(spent.as_secs_f64() * 1e6 / count as f64)
        })
        .await;
    report
        .measure("allocations/both", "per message", async |side| {
            let count = 200_000 / scale;
            let topic = server.fresh_topic();
            let before = cost::allocations();
            match side {
                Pair::Ours => ours::both(&server, &topic, count).await,
                Pair::Raw => raw::both(&server, &topic, count).await,
            };
            let spent = cost::allocations() - before;
            server.drop_topic(&topic);
            Figure::cost(spent as f64 / count as f64)
        })
        .await;
    // Beside publishing of our own without it.
    report
        .measure("server-cpu/deduplicate", "µs/message", async |side| {
            let count = 200_000 / scale;
            let topic = server.fresh_topic();
            let before = server.cpu();
            ours::publish_once(&server, &topic, count, matches!(side, Pair::Ours)).await;
            let spent = server.cpu() - before;
            server.drop_topic(&topic);
            Figure::cost(spent.as_secs_f64() * 1e6 / count as f64)
        })
        .await;
    for (name, quantile) in [("latency/p50", 0.5), ("latency/p99", 0.99)] {
        report
            .measure(name, "ms", async |side| {
                let topic = server.fresh_topic();
                let span = Duration::from_secs(if options.quick { 1 } else { 4 });
                let mut seen = match side {
                    Pair::Ours => ours::latencies(&server, &topic, span).await,
                    Pair::Raw => raw::latencies(&server, &topic, span).await,
                };
                server.drop_topic(&topic);
                seen.sort();
                let at = (seen.len() as f64 * quantile) as usize;
                Figure::cost(seen[at.min(seen.len() - 1)].as_secs_f64() * 1e3)
            })
            .await;
    }
    for (name, work) in [
        ("kv/get", raw::Work::Get),
        ("kv/set", raw::Work::Set),
        ("kv/incr", raw::Work::Incr),
        ("kv/cas", raw::Work::Cas),
    ] {
        report
            .measure(name, "operations/s", async |side| {
                let count = 40_000 / scale;
                let taken = match side {
                    Pair::Ours => ours::kv(&server, work, count, 8).await,
                    Pair::Raw => raw::kv(&server, work, count, 8).await,
                };
                Figure::rate(count, taken)
            })
            .await;
    }
    // Beside a clean run of our own: what failing costs.
    for (name, share) in [("retries/1%", 100), ("retries/100%", 1)] {
        report
            .measure(name, "messages/s", async |side| {
                let count = 50_000 / scale;
                let topic = server.fresh_topic();
                raw::publish_all(&server, &topic, count, 200).await;
                let failing = match side {
                    Pair::Ours => share,
                    Pair::Raw => u64::MAX,
                };
                let taken = ours::consume_failing(&server, &topic, count, failing).await;
                server.drop_topic(&topic);
                Figure::rate(count, taken)
            })
            .await;
    }
    report.finish();
}
