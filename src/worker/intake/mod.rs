//! The intake: reading, reclaiming, the deliveries in flight, the capacity, and the queue.

mod accept;
pub(crate) mod capacity;
pub(crate) mod catch_up;
pub(crate) mod crew;
pub(crate) mod fetch;
pub(crate) mod gate;
pub(crate) mod in_flight;
pub(crate) mod lease;
pub(crate) mod policy;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod reclaim;
mod slots;
pub(crate) mod unseen;
pub(crate) mod weight;
