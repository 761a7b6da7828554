//! The figures, in the order in which they are printed.

mod dead;
mod durability;
mod failing;
mod flat;
mod fleet;
mod idle;
mod kv;
mod latency;
mod memory;
mod owned;
mod throughput;
mod topics;

use crate::bench::Bench;

pub(crate) async fn all(bench: &mut Bench) {
    throughput::publishing(bench).await;
    throughput::consuming(bench).await;
    throughput::both(bench).await;
    durability::fsynced(bench).await;
    durability::replicated(bench).await;
    latency::measure(bench).await;
    kv::measure(bench).await;
    failing::retries(bench).await;
    failing::redrive(bench).await;
    dead::measure(bench).await;
    idle::measure(bench).await;
    flat::backlog(bench).await;
    flat::waiting(bench).await;
    flat::topics(bench).await;
    topics::idle(bench).await;
    topics::active(bench).await;
    fleet::consuming(bench).await;
    owned::consuming(bench).await;
    memory::measure(bench).await;
}
