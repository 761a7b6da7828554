//! A million dead letters: how long an operator waits, and how operators and retention slow consumers.
//!
//! Beside each figure stands the least that has to be done by hand: the same reply read raw, the
//! same consumers without an operator; beside the rates those that were asked for.

use std::time::{Duration, Instant};

use redstart::{
    Container, Group, Topic,
    dead_letters::{DeadLetterFilter, Reason},
};

use super::memory::resident;
use crate::bench::Bench;
use crate::pair::Side;
use crate::report::percentiles;
use crate::server::{Server, bench_group};
use crate::{ours, raw};

/// Each this many-th dead letter is of a cause of its own.
const RARE: u64 = 100_000;
/// The rate that the redrive is compared with, a second.
const WANTED: f64 = 30_000.0;
/// The pace of retention, per second.
const PACE: f64 = 2_500.0;

pub(super) async fn measure(bench: &mut Bench) {
    operator(bench).await;
    retention(bench).await;
}

async fn operator(bench: &mut Bench) {
    let looking = [
        ("dead/causes", "ms"),
        ("dead/first-page/common", "ms"),
        ("dead/first-page/rare", "ms"),
        ("dead/list/nothing-matches", "ms"),
    ];
    let moving = [
        ("dead/redrive", "dead letters/s"),
        ("dead/redrive/consumer-p50", "ms"),
        ("dead/redrive/consumer-p99", "ms"),
    ];
    if !bench
        .options
        .wants_any_long(&[&looking[..], &moving].concat())
    {
        return;
    }
    let (count, some) = (bench.options.count(1_000_000), bench.options.count(100_000));
    let (server, quick) = (&bench.server, bench.options.quick);
    let (topic, group) = (server.fresh_topic(), bench_group());
    let container = server.container(&topic).await;
    ours::add_dead_letters(&container, &topic, &group, count, RARE).await;
    bench
        .report
        .measure(looking, async |side| match side {
            Side::Ours => look(&container, &topic, &group).await,
            Side::Raw => {
                let key = |name: &str| format!("{{{topic}}}:group:{group}:{name}");
                let causes = raw::timed_hash(server, &key("dead:causes")).await;
                let page = raw::timed_range(server, &key("dead"), Some(100)).await;
                let all = raw::timed_range(server, &key("dead"), None).await;
                [causes, page, all, all].map(millis)
            }
        })
        .await;
    bench
        .report
        .measure(moving, async |side| {
            let before = resident();
            // Found before, not beside the consumers.
            let until = ours::oldest(&container, &topic, &group, some).await;
            let redriving = async {
                match side {
                    Side::Ours => ours::sweep(&container, &topic, &group, until, some).await,
                    Side::Raw => WANTED,
                }
            };
            let (rate, [p50, p99]) = tokio::join!(redriving, consumers(server, quick));
            let grown = resident() - before;
            assert!(
                grown < 32.0,
                "the operator's memory has grown by {grown} MiB"
            );
            [rate, p50, p99]
        })
        .await;
    ours::finish(container).await;
    server.flush();
}

/// A million dead letters are overdue.
async fn retention(bench: &mut Bench) {
    let figures = [
        ("dead/retention", "dead letters/s"),
        ("dead/retention/consumer-p50", "ms"),
        ("dead/retention/consumer-p99", "ms"),
    ];
    if !bench.options.wants_any_long(&figures) {
        return;
    }
    let server = &bench.server;
    let (topic, group) = (server.fresh_topic(), bench_group());
    let container = server.container(&topic).await;
    let count = bench.options.count(1_000_000);
    ours::add_dead_letters(&container, &topic, &group, count, RARE).await;
    let quick = bench.options.quick;
    bench
        .report
        .measure(figures, async |side| {
            let consumers = consumers(server, quick);
            let (rate, [p50, p99]) = match side {
                Side::Ours => ours::removing_overdue(&container, &topic, consumers).await,
                Side::Raw => (PACE, consumers.await),
            };
            [rate, p50, p99]
        })
        .await;
    ours::finish(container).await;
    server.flush();
}

/// The latency of consumers on the same server, in milliseconds: the median and the 99th percentile.
async fn consumers(server: &Server, quick: bool) -> [f64; 2] {
    let topic = server.fresh_topic();
    let duration = Duration::from_secs(if quick { 1 } else { 3 });
    let mut seen = ours::latencies(server, &topic, duration).await;
    server.drop_topic(&topic);
    percentiles(&mut seen, [0.5, 0.99])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The times of an operator's lists, in milliseconds.
async fn look(container: &Container, topic: &Topic, group: &Group) -> [f64; 4] {
    let dead = container.dead_letters();
    let began = Instant::now();
    let causes = dead.causes(topic, group).await.expect("causes");
    let summary = began.elapsed();
    assert!(causes.len() > 1);
    let common = DeadLetterFilter::default().with_reason(Reason::Exhausted);
    let rare = DeadLetterFilter::default()
        .with_error("out of paper")
        .expect("a text");
    let none = DeadLetterFilter::default().with_tenant("nobody");
    let mut times = [summary; 4];
    for (at, filter, most) in [(1, common, 100), (2, rare, 5), (3, none, 1)] {
        let began = Instant::now();
        let (mut found, mut after) = (0, None);
        loop {
            let page = dead
                .list(topic, group, &filter, after, most)
                .await
                .expect("a page");
            found += page.items.len();
            after = page.next;
            if after.is_none() || found >= most {
                break;
            }
        }
        times[at] = began.elapsed();
        assert_eq!(found, if at == 3 { 0 } else { most });
    }
    times.map(millis)
}
