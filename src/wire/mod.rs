//! The wire format: what a stream entry's bytes say, and back.

pub(crate) mod dead_letter;
mod entry;
mod envelope;
mod export;
pub(crate) mod redelivery;
#[cfg(test)]
mod stored_formats;
pub(crate) mod value;

pub use dead_letter::Record;
pub use entry::{Limits, Undecodable, decode_entry, encode_entry};

use bytes::Bytes;

/// The fields of an entry, as they are stored: names and values in their order.
pub type Fields = Vec<(Bytes, Bytes)>;
