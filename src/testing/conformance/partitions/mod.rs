//! Topics with several partitions: keys stay together, and everything works over all partitions.

mod deliveries;
mod keys;
mod later;
mod support;

pub use self::deliveries::*;
pub use self::keys::*;
pub use self::later::*;
