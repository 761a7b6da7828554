//! The protocol: commands as bytes, replies read in place or as values.

mod protocol;
pub(super) mod reply;

#[cfg(feature = "testing")]
pub(crate) use protocol::read_reply;
pub(super) use protocol::{Broken, Head, Scan, Walk, pack};
