//! Memory while five million messages go through. The other side is the same run after its
//! first fifth.

use std::cell::RefCell;
use std::sync::Arc;

use crate::bench::Bench;
use crate::ours;
use crate::pair::Side;
use crate::work::SIZE;

const STEPS: u64 = 10;

/// What was seen after a step, in MiB.
#[derive(Clone, Copy, Debug)]
struct Seen {
    process: f64,
    server: f64,
}

pub(super) async fn measure(bench: &mut Bench) {
    let figures = [
        ("memory/process", "MiB"),
        ("memory/server", "MiB, retention settled"),
    ];
    if !bench.options.wants_any_long(&figures) {
        return;
    }
    let count = bench.options.count(5_000_000);
    let server = &bench.server;
    let steps = RefCell::new(Vec::new());
    bench
        .report
        .measure_once(figures, async |side| {
            if side == Side::Ours {
                let topic = server.fresh_topic();
                let container = server.container(&topic).await;
                let handled = Arc::default();
                ours::counting(&container, &topic, 64, &handled).await;
                for step in 1..=STEPS {
                    ours::publish(&container, &topic, count / STEPS, SIZE).await;
                    ours::wait_for(&handled, count / STEPS * step).await;
                    steps.borrow_mut().push(Seen {
                        process: resident(),
                        server: server.memory() / 1024.0 / 1024.0,
                    });
                }
                ours::drained(&container, &topic, 0).await;
                ours::finish(container).await;
            }
            let steps = steps.borrow();
            let (first, last) = steps.split_at(steps.len() / 5);
            let seen = if side == Side::Ours { last } else { first };
            let most = |of: fn(&Seen) -> f64| seen.iter().map(of).fold(0.0, f64::max);
            [most(|seen| seen.process), most(|seen| seen.server)]
        })
        .await;
    server.flush();
}

/// What this process takes of the machine's memory, in MiB.
pub(super) fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok())
        .expect("Linux tells it")
        / 1024.0
}
