//! A thousand topics with ten groups each in one process, and one busy topic among them.

use std::sync::Arc;
use std::time::Duration;

use redstart::{Container, Topic};

use crate::bench::Bench;
use crate::meter::Meter;
use crate::pair::Side;
use crate::report::percentiles;
use crate::server::Server;
use crate::{ours, raw};

/// Subscribing has costs of its own, which are over by then.
const SETTLE: Duration = Duration::from_secs(20);
/// How many topics and groups the other side reads, each with a blocking read.
const BLOCKED: usize = 100;

/// What ten thousand idle subscriptions cost. The other side is a hundred blocked reads.
pub(super) async fn idle(bench: &mut Bench) {
    let figures = [
        ("topics/connections", "connections"),
        ("topics/idle-commands", "commands/s"),
        ("topics/idle-client-cpu", "% of a core"),
        ("topics/idle-server-cpu", "% of a core"),
        ("topics/idle-client-memory", "KB each"),
    ];
    if !bench.options.wants_any_long(&figures) {
        return;
    }
    let topics = bench.options.count(1_000) as usize;
    let duration = Duration::from_secs(if bench.options.quick { 10 } else { 100 });
    let server = &bench.server;
    bench
        .report
        .measure_once(figures, async |side| {
            let figures = match side {
                Side::Ours => many(server, topics, duration).await,
                Side::Raw => blocked(server, duration).await,
            };
            server.flush();
            figures
        })
        .await;
}

/// The latency of one busy topic among a thousand. The other side is a topic alone.
pub(super) async fn active(bench: &mut Bench) {
    let figures = [("topics/active/p50", "ms"), ("topics/active/p99", "ms")];
    if !bench.options.wants_any_long(&figures) {
        return;
    }
    let topics = bench.options.count(1_000) as usize;
    let duration = Duration::from_secs(if bench.options.quick { 1 } else { 5 });
    let server = &bench.server;
    let container = subscribed(server, topics, 1).await;
    tokio::time::sleep(SETTLE).await;
    bench
        .report
        .measure(figures, async |side| {
            let topic = server.fresh_topic();
            let mut seen = match side {
                Side::Ours => ours::latencies_in(&container, &topic, duration).await,
                Side::Raw => ours::latencies(server, &topic, duration).await,
            };
            server.drop_topic(&topic);
            percentiles(&mut seen, [0.5, 0.99])
        })
        .await;
    ours::finish(container).await;
    server.flush();
}

async fn many(server: &Server, topics: usize, duration: Duration) -> [f64; 5] {
    let groups = 10;
    let before = resident();
    let container = subscribed(server, topics, groups).await;
    tokio::time::sleep(SETTLE).await;
    let each = (resident() - before) / (topics * groups) as f64;
    let (commands, meter) = (server.commands(), Meter::start(server));
    tokio::time::sleep(duration).await;
    let spent = meter.stop();
    let ran = server.commands() - commands;
    let connections = server.connections();
    ours::finish(container).await;
    let share = |cpu: Duration| cpu.as_secs_f64() / spent.taken.as_secs_f64() * 100.0;
    [
        connections,
        ran / spent.taken.as_secs_f64(),
        share(spent.client_cpu),
        share(spent.server_cpu),
        each,
    ]
}

async fn blocked(server: &Server, duration: Duration) -> [f64; 5] {
    let topics: Vec<Topic> = (0..BLOCKED).map(|_| server.fresh_topic()).collect();
    let (before, commands) = (resident(), server.commands());
    let spent = raw::idle(server, &topics, duration).await;
    let ran = server.commands() - commands;
    let share = |cpu: Duration| cpu.as_secs_f64() / spent.taken.as_secs_f64() * 100.0;
    [
        BLOCKED as f64,
        ran / spent.taken.as_secs_f64(),
        share(spent.client_cpu),
        share(spent.server_cpu),
        (resident() - before).max(0.0) / BLOCKED as f64,
    ]
}

async fn subscribed(server: &Server, topics: usize, groups: usize) -> Container {
    let container = server.connect().await;
    let handled = Arc::default();
    for _ in 0..topics {
        let topic = server.fresh_topic();
        for group in 0..groups {
            ours::counting_as(&container, &topic, &format!("group-{group}"), &handled).await;
        }
    }
    container
}

/// The resident memory of this process in KB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|kb| kb.parse().ok()).unwrap_or(0.0)
}
