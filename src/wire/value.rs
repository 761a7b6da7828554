//! The values of the key-value store as bytes.
//!
//! A value that begins with 0xC1, a byte that MessagePack never uses, is MessagePack after that
//! byte. Any other value is JSON text, or a plain string if it is not valid JSON. Integers are
//! decimal text in both codecs, so that INCR works. Map keys are sorted, so equal values have equal
//! bytes and compare-and-set works on a `HashMap`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::{Codec, Error, ErrorKind, RawPayload, msgpack};

const MSGPACK: u8 = 0xC1;

/// Encodes a value in its canonical form.
pub(crate) fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Bytes, Error> {
    let failed = || {
        Error::new(
            ErrorKind::Encode,
            "encode value",
            "the value cannot be encoded",
        )
    };
    if codec == Codec::Json {
        let mut value = serde_json::to_value(value).map_err(|e| failed().because(e))?;
        // Another crate in the build may have enabled serde_json's `preserve_order`.
        value.sort_all_objects();
        return Ok(RawPayload::encode(Codec::Json, &value)?.into_bytes());
    }
    let payload = RawPayload::encode(Codec::MessagePack, value)?;
    if msgpack::is_integer(payload.as_bytes())
        && let Ok(Value::Number(number)) = payload.decode()
    {
        return Ok(Bytes::from(number.to_string()));
    }
    let mut bytes = Vec::with_capacity(payload.as_bytes().len() + 1);
    bytes.push(MSGPACK);
    msgpack::write_canonical(payload.as_bytes(), &mut bytes)
        .map_err(|rule| failed().because(rule))?;
    Ok(Bytes::from(bytes))
}

/// Decodes a stored value, whichever program wrote it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Error> {
    let failed = || {
        Error::new(
            ErrorKind::Decode,
            "decode value",
            "the stored bytes are damaged",
        )
    };
    if bytes.first() == Some(&MSGPACK) {
        return RawPayload::checked(Codec::MessagePack, bytes.slice(1..))
            .map_err(|rule| failed().because(rule))?
            .decode();
    }
    match RawPayload::checked(Codec::Json, bytes.clone()) {
        Ok(payload) => payload.decode(),
        Err(_) => {
            let text = std::str::from_utf8(bytes).map_err(|e| failed().because(e))?;
            RawPayload::encode(Codec::MessagePack, text)?.decode()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn integers_are_plain_decimal_text_in_both_codecs() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert_eq!(&encode(codec, &42).unwrap()[..], b"42");
            assert_eq!(&encode(codec, &-7_i64).unwrap()[..], b"-7");
            assert_eq!(
                &encode(codec, &u64::MAX).unwrap()[..],
                b"18446744073709551615"
            );
            assert_ne!(&encode(codec, &1.0).unwrap()[..], b"1");
        }
    }

    #[test]
    fn text_that_is_no_json_is_a_plain_string() {
        let read = |text: &'static str| decode::<Value>(&Bytes::from(text)).unwrap();
        assert_eq!(read("hello there"), Value::from("hello there"));
        assert_eq!(read("true"), Value::from(true));
        assert_eq!(read("{\"a\":1}"), serde_json::json!({"a": 1}));
        assert_eq!(read(""), Value::from(""));
        assert!(decode::<Value>(&Bytes::from_static(b"\xff\xfe")).is_err());
        assert!(decode::<Value>(&Bytes::from_static(b"\xc1\xdd\xff\xff\xff\xff")).is_err());
    }

    proptest! {
        #[test]
        fn equal_maps_are_equal_bytes_whatever_their_order(
            entries in prop::collection::btree_map(".{0,8}", any::<i32>(), 0..40)
        ) {
            for codec in [Codec::MessagePack, Codec::Json] {
                // Two maps of the same entries have two hash seeds, and so two orders.
                let one: HashMap<_, _> = entries.clone().into_iter().collect();
                let two: HashMap<_, _> = entries.clone().into_iter().rev().collect();
                let bytes = encode(codec, &vec![&one]).unwrap();
                prop_assert_eq!(&bytes, &encode(codec, &vec![&two]).unwrap());
                let back: Vec<HashMap<String, i32>> = decode(&bytes).unwrap();
                prop_assert_eq!(&back[0], &one);
            }
        }

        #[test]
        fn no_stored_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<Value>(&Bytes::from(bytes.clone()));
            let _ = decode::<Value>(&Bytes::from([&[MSGPACK][..], &bytes].concat()));
        }
    }
}
