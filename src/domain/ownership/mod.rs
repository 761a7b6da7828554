//! The decisions behind owned groups: who reads which partition, how far a partition is settled, and
//! which message of a key is next. No clock and no randomness.

mod assignment;
mod cursor;
mod lines;
mod window;

pub(crate) use assignment::{Plan, plan};
pub use cursor::Cursor;
pub(crate) use lines::Lines;
pub(crate) use window::Window;
