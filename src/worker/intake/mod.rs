//! What comes in: reading, reclaiming, what is in flight, how much may be, and the queue.

pub(crate) mod capacity;
pub(crate) mod fetch;
pub(crate) mod in_flight;
pub(crate) mod queue;
pub(crate) mod reclaim;
