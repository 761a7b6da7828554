//! The figures that count allocations, in a program of their own: counting makes each allocation
//! dearer, and would so change every other figure in favour of whoever makes fewer.

// The other figures' parts are not used here.
#![allow(dead_code, unused_imports)]

mod bench;
mod meter;
mod options;
mod ours;
mod pair;
mod raw;
mod report;
mod server;
mod work;

use pair::Side;
use work::SIZE;

#[global_allocator]
static GLOBAL: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn allocations() -> f64 {
    stats_alloc::INSTRUMENTED_SYSTEM.stats().allocations as f64
}

fn main() {
    bench::run(async |bench| {
        let count = bench.options.count(200_000);
        let figures = [
            ("allocations/publish_all", "per message"),
            ("allocations/both", "per message"),
        ];
        let server = &bench.server;
        bench
            .report
            .measure_once(figures, async |side| {
                let (first, second) = (server.fresh_topic(), server.fresh_topic());
                let before = allocations();
                match side {
                    Side::Ours => ours::publish_all(server, &first, count, SIZE).await,
                    Side::Raw => raw::publish_all(server, &first, count, SIZE).await,
                };
                let between = allocations();
                match side {
                    Side::Ours => ours::both(server, &second, count).await,
                    Side::Raw => raw::both(server, &second, count).await,
                };
                let after = allocations();
                [between - before, after - between].map(|spent| spent / count as f64)
            })
            .await;
    });
}
