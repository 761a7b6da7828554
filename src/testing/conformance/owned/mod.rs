//! Owned groups: members, partitions, and cursors that only their owner moves.

mod cursors;
pub mod effects;
mod handovers;
mod members;
mod order;
mod progress;
mod support;

pub use self::cursors::*;
pub use self::handovers::*;
pub use self::members::*;
pub use self::order::*;
pub use self::progress::*;
