//! The wire format: what a stream entry's bytes say, and back.

mod entry;
mod envelope;
pub(crate) mod parcel;
pub(crate) mod record;
pub(crate) mod value;

pub use entry::{Limits, Undecodable, decode_entry, encode_entry};
