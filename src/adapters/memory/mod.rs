//! The memory adapter: the same bus in one process, for tests, demos and single-process use.
//!
//! One file per role, named as in the port and as in the Redis adapter. Retries, snoozes, times to
//! live, ages, entry ids and claims go by the store's clock. Leases go by the time that really
//! passes, because they measure whether a consumer is alive: setting the clock forward takes no
//! message from a running handler.

mod adapter;
mod bells;
mod clock;
mod dead_letters;
mod deliveries;
mod effects;
mod ids;
mod inspect;
mod later;
mod later_state;
mod log;
mod owned;
mod owners;
mod reader;
mod schedule;
mod sequence;
mod sessions;
mod state;
mod steady;
mod store;
mod table;
mod topics;
mod values;

pub use clock::ManualClock;
pub use store::MemoryStore;
