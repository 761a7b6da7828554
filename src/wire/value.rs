//! The values of the key-value store as bytes.
//!
//! A value that begins with 0xC1, a byte that MessagePack never uses, is MessagePack after that
//! byte. Any other value is JSON text, or a plain string if it is not valid JSON. Integers are
//! decimal text in both codecs, so that INCR works, and a value with a number that MessagePack
//! would round is JSON in both. Map keys are sorted, so equal values have equal bytes and
//! compare-and-set works on a `HashMap`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::{Codec, Error, ErrorKind, Portable, RawPayload, msgpack};

const MSGPACK: u8 = 0xC1;
/// The third byte of a key that [`once`](crate::kv::once) holds, behind two of [`MSGPACK`], and
/// what the key then is.
const MARKS: [(u8, &str); 3] = [
    (
        b'c',
        "the key is claimed by `once`, whose function is running or was interrupted",
    ),
    (
        b'b',
        "the key is held by `once`, whose function has begun and may not run a second time",
    ),
    (
        b'd',
        "the key is the mark of a completed `once`; call `once` to read its result",
    ),
];

/// Encodes a value in its canonical form.
pub(crate) fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Bytes, Error> {
    let failed = || {
        Error::new(
            ErrorKind::Encode,
            "encode value",
            "the value cannot be encoded",
        )
    };
    let portable = Portable::with_wide_integers(value).map_err(|e| failed().because(e))?;
    encode_portable(codec, &portable)
}

/// Encodes a value that was made portable before.
pub(crate) fn encode_portable(codec: Codec, portable: &Portable) -> Result<Bytes, Error> {
    let failed = || {
        Error::new(
            ErrorKind::Encode,
            "encode value",
            "the value cannot be encoded",
        )
    };
    let plain = match portable.msgpack() {
        Some(bytes) if codec == Codec::MessagePack && !msgpack::is_integer(bytes) => bytes,
        _ => {
            let json = portable.to_json(true).map_err(|e| failed().because(e))?;
            return Ok(Bytes::from(json));
        }
    };
    let mut bytes = Vec::with_capacity(plain.len() + 1);
    bytes.push(MSGPACK);
    msgpack::write_canonical(plain, &mut bytes).map_err(|rule| failed().because(rule))?;
    Ok(Bytes::from(bytes))
}

/// Decodes a stored value, whichever program wrote it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Error> {
    let failed = |rule: &str| Error::new(ErrorKind::Decode, "decode value", rule);
    let damaged = || failed("the stored bytes are damaged");
    if let [MSGPACK, MSGPACK, mark, ..] = bytes[..]
        && let Some((_, rule)) = MARKS.iter().find(|(known, _)| *known == mark)
    {
        return Err(failed(rule));
    }
    if bytes.first() == Some(&MSGPACK) {
        return RawPayload::checked(Codec::MessagePack, bytes.slice(1..))
            .map_err(|rule| damaged().because(rule))?
            .decode();
    }
    match RawPayload::checked(Codec::Json, bytes.clone()) {
        Ok(payload) => payload.decode(),
        Err(_) => {
            let text = std::str::from_utf8(bytes).map_err(|e| damaged().because(e))?;
            RawPayload::encode(Codec::MessagePack, text)?.decode()
        }
    }
}

/// The state of a key of `once`, and the stored result of a completed run. `None` for other values.
pub(crate) fn once_state(bytes: &[u8]) -> Option<(&'static str, Option<Bytes>)> {
    let [MSGPACK, MSGPACK, mark, rest @ ..] = bytes else {
        return None;
    };
    match mark {
        b'c' => Some(("claimed", None)),
        b'b' => Some(("begun", None)),
        b'd' => Some((
            "done",
            once_result(rest).filter(|result| !result.is_empty()),
        )),
        _ => None,
    }
}

/// The result in what follows the mark of a completed claim: the length of the owner's token in four
/// digits, the token, the result.
pub(crate) fn once_result(rest: &[u8]) -> Option<Bytes> {
    let (length, rest) = rest.split_at_checked(4)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    rest.get(length..).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;
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
    fn text_that_is_not_json_is_a_plain_string() {
        let read = |text: &'static str| decode::<Value>(&Bytes::from(text)).unwrap();
        assert_eq!(read("hello there"), Value::from("hello there"));
        assert_eq!(read("true"), Value::from(true));
        assert_eq!(read("{\"a\":1}"), serde_json::json!({"a": 1}));
        assert_eq!(read(""), Value::from(""));
        assert!(decode::<Value>(&Bytes::from_static(b"\xff\xfe")).is_err());
        assert!(decode::<Value>(&Bytes::from_static(b"\xc1\xdd\xff\xff\xff\xff")).is_err());
    }

    #[test]
    fn a_128_bit_integer_is_a_number() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert_eq!(&encode(codec, &5_i128).unwrap()[..], b"5");
            assert_eq!(&encode(codec, &-5_i128).unwrap()[..], b"-5");
            let text = u128::MAX.to_string();
            assert_eq!(encode(codec, &u128::MAX).unwrap(), text.as_bytes());
            let nested = vec![(u128::MAX, i128::MIN, 1_u128)];
            let bytes = encode(codec, &nested).unwrap();
            assert_eq!(decode::<Vec<(u128, i128, u128)>>(&bytes).unwrap(), nested);
        }
        assert_eq!(decode::<i128>(&Bytes::from_static(b"5")).unwrap(), 5);
        let small = encode(Codec::MessagePack, &[7_u128]).unwrap();
        assert_eq!(decode::<Vec<u64>>(&small).unwrap(), [7]);
    }

    #[test]
    fn json_without_a_type_keeps_every_digit() {
        let digits = "100000000000000000000001";
        for codec in [Codec::MessagePack, Codec::Json] {
            let raw: Box<RawValue> = serde_json::from_str(digits).unwrap();
            assert_eq!(encode(codec, &raw).unwrap(), digits.as_bytes());
            let text = format!("{{\"a\":[1.5,{digits}]}}");
            let raw: Box<RawValue> = serde_json::from_str(&text).unwrap();
            let bytes = encode(codec, &raw).unwrap();
            assert_eq!(decode::<Box<RawValue>>(&bytes).unwrap().get(), text);
        }
    }

    #[test]
    fn json_refuses_nan_and_infinity() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = encode(Codec::Json, &vec![value]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Encode);
        }
        let packed = encode(Codec::MessagePack, &f64::NAN).unwrap();
        assert!(decode::<f64>(&packed).unwrap().is_nan());
    }

    #[test]
    fn a_mark_of_once_is_not_called_damaged() {
        for (mark, word) in [("c", "claimed"), ("b", "begun"), ("d", "completed")] {
            let bytes = [b"\xC1\xC1", mark.as_bytes(), b"token"].concat();
            let error = decode::<i32>(&Bytes::from(bytes)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.to_string().contains("`once`"), "{error}");
        }
        let error = decode::<i32>(&Bytes::from_static(b"\xC1\xC1x")).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_key_of_once_has_a_state_and_a_result() {
        let done = once_state(b"\xC1\xC1d0002ab\"r-1\"");
        assert_eq!(done, Some(("done", Some(Bytes::from_static(b"\"r-1\"")))));
        assert_eq!(once_state(b"\xC1\xC1d0002ab"), Some(("done", None)));
        assert_eq!(once_state(b"\xC1\xC1d9"), Some(("done", None)));
        assert_eq!(once_state(b"\xC1\xC1cab"), Some(("claimed", None)));
        assert_eq!(once_state(b"\xC1\xC1bab"), Some(("begun", None)));
        assert_eq!(once_state(b"\xC1\xC1xab"), None);
        assert_eq!(once_state(b"\xC1"), None);
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
