//! An encoded value: bytes and the codec that wrote them.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;
use super::error::{Error, ErrorKind};
use super::msgpack;

/// A value in its encoded form, decoded when asked for.
///
/// Both codecs carry the same data model: MessagePack is written in serde's
/// human-readable form, so that a `Uuid`, say, is text in both, and a payload
/// survives being stored in the other codec.
#[derive(Clone, Eq, PartialEq)]
pub struct RawPayload {
    codec: Codec,
    bytes: Bytes,
}

impl RawPayload {
    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when the value's `Serialize` fails or when it is
    /// nested deeper than 64 levels, which no reader would accept.
    pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Self, Error> {
        let failed = || {
            Error::new(
                ErrorKind::Encode,
                "encode payload",
                "the value cannot be encoded",
            )
        };
        let bytes = match codec {
            Codec::MessagePack => {
                let mut bytes = Vec::with_capacity(128);
                let mut serializer = rmp_serde::Serializer::new(&mut bytes)
                    .with_struct_map()
                    .with_human_readable();
                value
                    .serialize(&mut serializer)
                    .map_err(|e| failed().because(e))?;
                bytes
            }
            Codec::Json => serde_json::to_vec(value).map_err(|e| failed().because(e))?,
        };
        Self::checked(codec, Bytes::from(bytes)).map_err(|rule| failed().because(rule))
    }

    /// Takes bytes that are one complete value of the codec, within its limits.
    pub(crate) fn checked(codec: Codec, bytes: Bytes) -> Result<Self, String> {
        match codec {
            Codec::MessagePack => msgpack::check(&bytes)?,
            Codec::Json => {
                json_depth(&bytes)?;
                serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
                    .map_err(|e| e.to_string())?;
            }
        }
        Ok(Self { codec, bytes })
    }

    /// Takes bytes that a checked walk has delimited already.
    pub(crate) fn walked(codec: Codec, bytes: Bytes) -> Self {
        Self { codec, bytes }
    }

    /// Decodes the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] when the value does not have the shape of `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let failed = || {
            let target = std::any::type_name::<T>();
            Error::new(
                ErrorKind::Decode,
                "decode payload",
                format!("the payload is no {target}"),
            )
        };
        match self.codec {
            Codec::MessagePack => {
                let mut deserializer =
                    rmp_serde::Deserializer::from_read_ref(&self.bytes).with_human_readable();
                T::deserialize(&mut deserializer).map_err(|e| failed().because(e))
            }
            Codec::Json => serde_json::from_slice(&self.bytes).map_err(|e| failed().because(e)),
        }
    }

    /// The same value in another codec; free where it is in that codec already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when the value has no form in the other codec, such
    /// as a MessagePack map whose keys are arrays.
    pub fn to_codec(&self, codec: Codec) -> Result<Self, Error> {
        if codec == self.codec {
            return Ok(self.clone());
        }
        let failed = || {
            Error::new(
                ErrorKind::Encode,
                "transcode payload",
                format!("the value has no {codec} form"),
            )
        };
        let mut bytes = Vec::with_capacity(self.bytes.len() * 2);
        match codec {
            Codec::Json => {
                let mut from =
                    rmp_serde::Deserializer::from_read_ref(&self.bytes).with_human_readable();
                let mut to = serde_json::Serializer::new(&mut bytes);
                serde_transcode::transcode(&mut from, &mut to).map_err(|e| failed().because(e))?;
            }
            Codec::MessagePack => {
                let mut from = serde_json::Deserializer::from_slice(&self.bytes);
                let mut to = rmp_serde::Serializer::new(&mut bytes).with_human_readable();
                serde_transcode::transcode(&mut from, &mut to).map_err(|e| failed().because(e))?;
            }
        }
        Self::checked(codec, Bytes::from(bytes)).map_err(|rule| failed().because(rule))
    }

    /// The codec that wrote the bytes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The encoded bytes, given up.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Shows codec and size, never the content: payloads hold what users would not log.
impl fmt::Debug for RawPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.codec, self.bytes.len())
    }
}

/// Refuses JSON that nests deeper than [`msgpack::MAX_DEPTH`].
///
/// serde_json skips a value without recursion and so without a limit; only what decodes
/// it later would find it too deep. Both codecs have one limit, so that every payload
/// can be stored in either.
fn json_depth(bytes: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > msgpack::MAX_DEPTH {
            return Err(msgpack::Flaw::TooDeep.as_str());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| json!([inner]))
    }

    #[test]
    fn both_codecs_stop_at_the_same_depth() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert!(RawPayload::encode(codec, &nested(64)).is_ok(), "{codec}");
            let error = RawPayload::encode(codec, &nested(65)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Encode, "{codec}");
        }
    }

    #[test]
    fn brackets_inside_text_do_not_count() {
        let text = format!("{}\\\"{}", "[".repeat(100), "{".repeat(100));
        let payload = RawPayload::encode(Codec::Json, &json!({ "t": text })).unwrap();
        assert_eq!(payload.decode::<Value>().unwrap()["t"], text);
    }

    #[test]
    fn a_payload_never_shows_its_content() {
        let payload = RawPayload::encode(Codec::Json, "canary-secret").unwrap();
        assert_eq!(format!("{payload:?}"), "Payload(JSON, 15 bytes)");
    }
}
