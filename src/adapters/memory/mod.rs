//! The memory adapter: the same bus in one process, for tests, demos and single-process use.
//!
//! One file for each concern, named as in the Redis adapter. Everything that is *scheduled*
//! goes by the store's clock: retries, snoozes, times to live, ages, entry ids, claims. Leases
//! go by the time that really passes, because they measure whether a consumer is alive:
//! setting the clock forward takes no message from a handler that is working on it.

mod adapter;
mod clock;
mod dead_letters;
mod group;
mod ids;
mod kv;
mod lease;
mod promote;
mod publish;
mod read;
mod retain;
mod schedule;
mod sequence;
mod settle;
mod status;
mod store;

pub use clock::ManualClock;
pub use store::MemoryStore;
