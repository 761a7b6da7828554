//! The wire format: stream entries, redeliveries, dead letters, values and export lines as bytes.

mod cloud_event;
pub(crate) mod dead_letter;
mod decoder;
mod encoder;
mod entry;
mod envelope;
mod export;
pub(crate) mod foreign;
mod form;
pub(crate) mod redelivery;
#[cfg(test)]
mod stored_formats;
pub(crate) mod value;

pub use dead_letter::Record;
pub(crate) use decoder::{Decoded, Decoder, with_envelope, with_later_envelope};
pub(crate) use encoder::{Arena, Encoder};
pub use entry::{Limits, Undecodable, decode_entry, encode_entry};
pub(crate) use export::FieldBytes;

use bytes::Bytes;

/// The fields of a stored entry: names and values, in their order.
pub type Fields = Vec<(Bytes, Bytes)>;
