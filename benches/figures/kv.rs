//! The key-value store, from eight tasks.

use crate::bench::Bench;
use crate::pair::Side;
use crate::work::Work;
use crate::{ours, raw};

/// As many as the pool has connections.
const TASKS: u64 = 8;

pub(super) async fn measure(bench: &mut Bench) {
    let Bench {
        server,
        report,
        options,
    } = bench;
    let count = options.count(40_000);
    for (name, work) in [
        ("kv/get", Work::Get),
        ("kv/set", Work::Set),
        ("kv/incr", Work::Incr),
        ("kv/cas", Work::Cas),
        ("kv/once", Work::Once),
    ] {
        report
            .measure([(name, "operations/s")], async |side| {
                let spent = match side {
                    Side::Ours => ours::kv(server, work, count, TASKS).await,
                    Side::Raw => raw::kv(server, work, count, TASKS).await,
                };
                server.flush();
                [spent.rate(count)]
            })
            .await;
    }
}
