//! How long a message takes from before its publish until its handler begins.

use std::time::Duration;

use crate::bench::Bench;
use crate::pair::Side;
use crate::report::percentiles;
use crate::{ours, raw};

pub(super) async fn measure(bench: &mut Bench) {
    let duration = Duration::from_secs(if bench.options.quick { 1 } else { 5 });
    let figures = [
        ("latency/p50", "ms"),
        ("latency/p99", "ms"),
        ("latency/p99.9", "ms"),
    ];
    let server = &bench.server;
    bench
        .report
        .measure(figures, async |side| {
            let topic = server.fresh_topic();
            let mut seen = match side {
                Side::Ours => ours::latencies(server, &topic, duration).await,
                Side::Raw => raw::latencies(server, &topic, duration).await,
            };
            server.drop_topic(&topic);
            percentiles(&mut seen, [0.5, 0.99, 0.999])
        })
        .await;
}
