//! JSON of other programs, read without a type.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::{Codec, RawPayload};

/// The members of a JSON object, each as it is written.
pub(super) type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The members, where the text is a JSON object.
pub(super) fn members(text: &str) -> Option<Members<'_>> {
    serde_json::from_str(text).ok()
}

/// The text of a JSON string, number or boolean.
pub(super) fn scalar(raw: &RawValue) -> Option<String> {
    match serde_json::from_str(raw.get()).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(raw.get().to_owned()),
        _ => None,
    }
}

/// The text of a JSON string.
pub(super) fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A JSON text as a payload.
pub(super) fn payload(json: &str) -> Result<RawPayload, String> {
    RawPayload::checked(Codec::Json, Bytes::copy_from_slice(json.as_bytes()))
}
