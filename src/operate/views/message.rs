//! A message in a list, and its envelope as JSON.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Codec, Envelope, Error, ErrorKind};
use crate::wire::{FieldBytes, Fields, Limits, encode_entry};

/// A message: its envelope, or for an undecodable one the reason and the fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) envelope: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fields: Option<Vec<(FieldBytes, FieldBytes)>>,
}

impl MessageView {
    pub(super) fn new<E: std::fmt::Display>(
        envelope: Result<&Envelope, E>,
        fields: &Fields,
    ) -> Self {
        let json = envelope
            .map_err(|flaw| flaw.to_string())
            .and_then(|envelope| envelope_json(envelope).map_err(|error| format!("{error:#}")));
        match json {
            Ok(envelope) => Self {
                envelope: Some(envelope),
                undecodable: None,
                fields: None,
            },
            Err(flaw) => Self {
                envelope: None,
                undecodable: Some(flaw),
                fields: Some(FieldBytes::of(fields)),
            },
        }
    }
}

/// The envelope as the wire has it, as JSON whatever its codec.
///
/// # Errors
///
/// [`ErrorKind::Encode`] for a payload that JSON cannot express.
pub fn envelope_json(envelope: &Envelope) -> Result<Box<RawValue>, Error> {
    let limits = Limits::default().with_max_bytes(usize::MAX);
    let (_, bytes) = encode_entry(envelope, Codec::Json, limits)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Encode, "envelope", "has no JSON form").because(e))
}
