//! The wire format: stream entries, redeliveries, dead letters, values and export lines as bytes.

pub(crate) mod dead_letter;
mod entry;
mod envelope;
mod export;
mod form;
pub(crate) mod redelivery;
#[cfg(test)]
mod stored_formats;
pub(crate) mod value;

pub use dead_letter::Record;
pub use entry::{Limits, Undecodable, decode_entry, encode_entry};
pub(crate) use export::FieldBytes;

use bytes::Bytes;

/// The fields of a stored entry: names and values, in their order.
pub type Fields = Vec<(Bytes, Bytes)>;
