//! An encoded value: bytes and the codec that wrote them.

mod frame;
#[cfg(test)]
mod kinds;
mod number;
mod read;
mod transcode;
mod unfit;
mod write;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::read::Reader;
use self::transcode::JsonForm;
use self::unfit::Unfit;
use self::write::{Wide, Writer};
use super::codec::Codec;
use super::error::{Error, ErrorKind};
use super::msgpack;

/// A payload up to this many bytes is written to a buffer of its thread, and copied at its exact length.
const SMALL: usize = 4 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A value in its encoded form.
///
/// Both codecs carry the same data model: MessagePack uses serde's human-readable form, so that a
/// `Uuid`, for example, is text in both and a payload can be stored in either codec.
/// [`docs::payloads`](crate::docs::payloads) lists the values that survive.
#[derive(Clone, Eq, PartialEq)]
pub struct RawPayload {
    codec: Codec,
    bytes: Bytes,
}

/// A value as MessagePack in memory. Numbers that MessagePack lacks stand in it as extensions, so
/// the bytes are a payload only where there are none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Portable {
    bytes: Vec<u8>,
    has_long_numbers: bool,
}

impl Portable {
    fn new<T: Serialize + ?Sized>(value: &T, wide: Wide, buffer: Vec<u8>) -> Result<Self, Unfit> {
        let mut writer = Writer::new(wide, buffer);
        value.serialize(&mut writer)?;
        msgpack::check(&writer.out).map_err(Unfit::new)?;
        Ok(Self {
            bytes: writer.out,
            has_long_numbers: writer.has_long_numbers,
        })
    }

    /// A value with its 128-bit integers as numbers.
    pub(crate) fn with_wide_integers<T: Serialize + ?Sized>(value: &T) -> Result<Self, Unfit> {
        Self::new(value, Wide::Number, Vec::new())
    }

    /// The MessagePack, where it holds the value without long numbers.
    pub(crate) fn msgpack(&self) -> Option<&[u8]> {
        (!self.has_long_numbers).then_some(&self.bytes)
    }

    /// About how many bytes the value takes when it is stored.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn into_bytes(self) -> Bytes {
        if self.bytes.len() > SMALL {
            return Bytes::from(self.bytes);
        }
        let bytes = Bytes::copy_from_slice(&self.bytes);
        self.give_back();
        bytes
    }

    /// Gives the buffer back to the thread, unless the thread ends.
    fn give_back(self) {
        if self.bytes.len() <= SMALL {
            let _ = BUFFER.try_with(|buffer| buffer.set(self.bytes));
        }
    }

    /// The value, as another type.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let (codec, bytes) = if let Some(bytes) = self.msgpack() {
            (Codec::MessagePack, bytes.to_vec())
        } else {
            let failed = |rule: Unfit| {
                Error::new(ErrorKind::Decode, "decode value", "no JSON").because(rule)
            };
            (Codec::Json, self.to_json(false).map_err(failed)?)
        };
        RawPayload::walked(codec, Bytes::from(bytes)).decode()
    }

    /// The value as JSON. NaN and infinity have no form in it.
    pub(crate) fn to_json(&self, sorted: bool) -> Result<Vec<u8>, Unfit> {
        let form = JsonForm {
            sorted,
            long_numbers: true,
        };
        let mut json = Vec::with_capacity(self.bytes.len() * 2);
        transcode::to_json(&self.bytes, form, &mut json)?;
        Ok(json)
    }
}

impl RawPayload {
    /// Encodes a value.
    ///
    /// JSON text inside the value (`RawValue`) with a number that MessagePack cannot hold exactly
    /// makes the payload JSON, whichever codec was asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value's `Serialize` fails, if it holds a 128-bit integer, if it
    /// nests deeper than 64 levels, which no reader accepts, and in JSON if it holds NaN or infinity.
    pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Self, Error> {
        let failed = || {
            Error::new(
                ErrorKind::Encode,
                "encode payload",
                "the value cannot be encoded",
            )
        };
        // If `Serialize` itself encodes a payload, the outer value has the buffer, and the inner one begins
        // with an empty one.
        let buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        let portable = Portable::new(value, Wide::Refused, buffer);
        let portable = portable.map_err(|e| failed().because(e))?;
        if codec == Codec::MessagePack && !portable.has_long_numbers {
            return Ok(Self {
                codec,
                bytes: portable.into_bytes(),
            });
        }
        let json = portable.to_json(false).map_err(|e| failed().because(e))?;
        portable.give_back();
        Ok(Self {
            codec: Codec::Json,
            bytes: Bytes::from(json),
        })
    }

    /// Checks that the bytes are one complete value of the codec, within its limits.
    pub(crate) fn checked(codec: Codec, bytes: Bytes) -> Result<Self, String> {
        match codec {
            Codec::MessagePack => msgpack::check(&bytes)?,
            Codec::Json => {
                json_depth(&bytes, msgpack::MAX_DEPTH)?;
                serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
                    .map_err(|e| e.to_string())?;
            }
        }
        Ok(Self { codec, bytes })
    }

    /// Wraps bytes that a walk has checked already.
    pub(crate) fn walked(codec: Codec, bytes: Bytes) -> Self {
        Self { codec, bytes }
    }

    /// Decodes the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the value does not have the shape of `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let failed = || {
            let target = std::any::type_name::<T>();
            Error::new(
                ErrorKind::Decode,
                "decode payload",
                format!("the payload is not a valid {target}"),
            )
        };
        match self.codec {
            Codec::MessagePack => {
                T::deserialize(&mut Reader::new(&self.bytes)).map_err(|e| failed().because(e))
            }
            Codec::Json => serde_json::from_slice(&self.bytes)
                .or_else(|e| decode_plainly(&self.bytes).ok_or_else(|| failed().because(e))),
        }
    }

    /// Converts the value to a codec; free if it is in that codec already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value has no form in the other codec: a MessagePack map whose
    /// keys are arrays, NaN, or a JSON number that MessagePack would have to round.
    pub fn to_codec(&self, codec: Codec) -> Result<Self, Error> {
        self.in_codec(codec).map(Cow::into_owned)
    }

    /// As [`to_codec`](Self::to_codec), borrowed where the value is in that codec already.
    pub(crate) fn in_codec(&self, codec: Codec) -> Result<Cow<'_, Self>, Error> {
        if codec == self.codec {
            return Ok(Cow::Borrowed(self));
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
                let form = JsonForm {
                    sorted: false,
                    long_numbers: false,
                };
                transcode::to_json(&self.bytes, form, &mut bytes)
                    .map_err(|e| failed().because(e))?;
            }
            Codec::MessagePack => {
                let has_long_numbers = transcode::from_json(&self.bytes, &mut bytes)
                    .map_err(|e| failed().because(e))?;
                if has_long_numbers {
                    let rule = "it holds a number that MessagePack would round; \
                                send the number as text, or use the JSON codec";
                    return Err(failed().because(rule));
                }
            }
        }
        let checked = Self::checked(codec, Bytes::from(bytes));
        checked
            .map(Cow::Owned)
            .map_err(|rule| failed().because(rule))
    }

    /// The codec of the bytes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Shows the codec and the size, never the content, which may be confidential.
impl fmt::Debug for RawPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.codec, self.bytes.len())
    }
}

/// Decodes JSON where another crate of the build has turned on `arbitrary_precision` of
/// `serde_json`, which hands numbers to tagged and flattened types in a form that they cannot read.
fn decode_plainly<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    static ARBITRARY_PRECISION: LazyLock<bool> = LazyLock::new(|| {
        serde_json::from_str::<serde_json::Number>("1.50").is_ok_and(|n| n.to_string() == "1.50")
    });
    if !*ARBITRARY_PRECISION {
        return None;
    }
    let mut bytes = Vec::new();
    match transcode::from_json(json, &mut bytes) {
        Ok(false) => T::deserialize(&mut Reader::new(&bytes)).ok(),
        _ => None,
    }
}

/// Refuses JSON that nests deeper than a limit.
///
/// serde_json skips a value without recursion, and so without a depth limit; a later decode would
/// fail. Both codecs have the same limit, so that every payload can be stored in either.
pub(super) fn json_depth(bytes: &[u8], limit: usize) -> Result<(), &'static str> {
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
        if depth > limit {
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
    fn a_value_may_encode_others_while_it_is_encoded() {
        struct Outer(usize);
        impl Serialize for Outer {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = RawPayload::encode(Codec::MessagePack, &"i".repeat(self.0));
                let inner = inner.map_err(serde::ser::Error::custom)?.as_bytes().len();
                let text = "o".repeat(self.0);
                (inner, &text, RawPayload::encode(Codec::Json, &7).is_ok()).serialize(serializer)
            }
        }
        for size in [10, 2 * SMALL, 10, SMALL] {
            let read = RawPayload::encode(Codec::MessagePack, &Outer(size)).unwrap();
            let (inner, text, done): (usize, String, bool) = read.decode().unwrap();
            assert!(inner > size && done && text == "o".repeat(size), "{size}");
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
