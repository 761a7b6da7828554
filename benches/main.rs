//! Redstart beside a raw loop of the same work, in the same run.
//!
//! `benches/run [--json] [--quick] [--long] [--aof off|everysec|always] [--current-thread] [NAME…]`.
//! Every figure is measured in pairs run in turn (ours, raw, ours, raw, …) on a private redis-server;
//! the median ratio and its spread are printed. Wall times on a shared machine mean little;
//! ratios within a run do. What the figures are compared with, `src/docs/performance.md` says.

mod bench;
mod figures;
mod meter;
mod options;
mod ours;
mod pair;
mod raw;
mod report;
mod server;
mod work;

fn main() {
    bench::run(figures::all);
}
