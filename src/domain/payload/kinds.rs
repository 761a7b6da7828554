//! Which kinds of values survive: the tests behind the table of the guide on payloads.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::RawPayload;
use crate::domain::{Codec, ErrorKind};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Tick;
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Meters(f64);
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Pair(i8, String);
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
enum Plain {
    One,
    Two,
}
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum External {
    Unit,
    New(u64),
    Nothing(Tick),
    Tuple(i32, String),
    Struct { a: Option<f32>, b: char },
}
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type")]
enum Internal {
    Unit,
    Struct { amount: i64, ratio: f64 },
}
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    New(Vec<u8>),
    Struct { amount: u64 },
}
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    Struct { ratio: f64 },
}
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Flat {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, i32>,
}

/// Keys of maps, which JSON writes as text.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Keys {
    texts: BTreeMap<String, i32>,
    numbers: (BTreeMap<u64, i32>, BTreeMap<i8, ()>),
    booleans: BTreeMap<bool, i32>,
    variants: BTreeMap<Plain, i32>,
    characters: BTreeMap<char, i32>,
}

/// One value of every kind that survives in both codecs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Kinds {
    numbers: (i8, i64, u64, f32, f64),
    texts: (String, char, bool),
    options: (Option<u32>, Option<Tick>, ()),
    lists: (Vec<i32>, [u8; 3], Vec<u8>, Bytes),
    structs: (Tick, Meters, Pair, Flat),
    enums: (External, Internal, Adjacent, Untagged, Vec<Plain>),
    keys: Keys,
    library: (Uuid, IpAddr, Duration),
    json: Value,
}

fn kinds() -> impl Strategy<Value = Kinds> {
    let float = || any::<f64>().prop_filter("JSON has only finite numbers", |f| f.is_finite());
    let short = || any::<f32>().prop_filter("JSON has only finite numbers", |f| f.is_finite());
    let plain = || prop_oneof![Just(Plain::One), Just(Plain::Two)];
    let numbers = (any::<(i8, i64, u64)>(), short(), float());
    let texts = (".{0,9}", any::<(char, bool)>());
    let lists = any::<(Vec<i32>, [u8; 3], Vec<u8>, Vec<u8>)>();
    let external = prop_oneof![
        Just(External::Unit),
        Just(External::Nothing(Tick)),
        any::<u64>().prop_map(External::New),
        (any::<i32>(), ".{0,3}").prop_map(|(a, b)| External::Tuple(a, b)),
        (prop::option::of(short()), any::<char>()).prop_map(|(a, b)| External::Struct { a, b }),
    ];
    let internal = prop_oneof![
        Just(Internal::Unit),
        (any::<i64>(), float()).prop_map(|(amount, ratio)| Internal::Struct { amount, ratio }),
    ];
    let adjacent = prop_oneof![
        Just(Adjacent::Unit),
        any::<Vec<u8>>().prop_map(Adjacent::New),
        any::<u64>().prop_map(|amount| Adjacent::Struct { amount }),
    ];
    let untagged = prop_oneof![
        any::<i64>().prop_map(Untagged::Number),
        ".{0,3}".prop_map(Untagged::Text),
        float().prop_map(|ratio| Untagged::Struct { ratio }),
    ];
    let flat = (
        any::<u32>(),
        prop::option::of(".{0,3}"),
        any::<BTreeMap<u8, i32>>(),
    );
    let keys = (
        prop::collection::btree_map(".{0,3}", any::<i32>(), 0..20),
        any::<(BTreeMap<u64, i32>, BTreeMap<i8, ()>, BTreeMap<bool, i32>)>(),
        prop::collection::btree_map(plain(), any::<i32>(), 0..2),
        any::<BTreeMap<char, i32>>(),
    );
    let enums = (
        external,
        internal,
        adjacent,
        untagged,
        prop::collection::vec(plain(), 0..3),
    );
    let scalars = (numbers, texts, any::<Option<u32>>(), float());
    let library = any::<(u128, IpAddr, Duration)>();
    (scalars, lists, flat, enums, keys, library).prop_map(
        |(scalars, lists, flat, enums, keys, library)| {
            let (numbers, texts, option, float) = scalars;
            Kinds {
                numbers: (numbers.0.0, numbers.0.1, numbers.0.2, numbers.1, numbers.2),
                texts: (texts.0.clone(), texts.1.0, texts.1.1),
                options: (option, None, ()),
                lists: (lists.0, lists.1, lists.2, lists.3.into()),
                structs: (
                    Tick,
                    Meters(float),
                    Pair(numbers.0.0, texts.0),
                    Flat {
                        id: flat.0,
                        note: flat.1,
                        rest: flat
                            .2
                            .into_iter()
                            .map(|(k, v)| (format!("r{k}"), v))
                            .collect(),
                    },
                ),
                enums,
                keys: Keys {
                    texts: keys.0,
                    numbers: (keys.1.0, keys.1.1),
                    booleans: keys.1.2,
                    variants: keys.2,
                    characters: keys.3,
                },
                library: (Uuid::from_u128(library.0), library.1, library.2),
                json: json!({"f": float, "i": numbers.0.1, "u": [numbers.0.2, null, true]}),
            }
        },
    )
}

/// The value after a trip through both codecs, as each of them has it.
fn trips<T: Serialize + DeserializeOwned>(value: &T) -> Vec<T> {
    let packed = RawPayload::encode(Codec::MessagePack, value).unwrap();
    let json = packed.to_codec(Codec::Json).unwrap();
    let again = json.to_codec(Codec::MessagePack).unwrap();
    let direct = RawPayload::encode(Codec::Json, value).unwrap();
    assert_eq!(direct.codec(), Codec::Json);
    [packed, json, again, direct]
        .map(|payload| payload.decode().unwrap())
        .into()
}

fn refused<T: Serialize>(codec: Codec, value: &T) -> String {
    let payload = RawPayload::encode(Codec::MessagePack, value);
    let error = payload
        .and_then(|payload| payload.to_codec(codec))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error:?}");
    std::error::Error::source(&error).unwrap().to_string()
}

proptest! {
    #[test]
    fn every_kind_survives_both_codecs_and_the_way_back(value in kinds()) {
        for read in trips(&value) {
            prop_assert_eq!(&read, &value);
        }
    }

    #[test]
    fn the_bytes_are_those_of_rmp_serde_in_its_named_and_readable_form(mut value in kinds()) {
        // The intended differences are the unit struct, here as a field and inside an enum, and a
        // `Value` whose numbers serde_json hands out as text under `arbitrary_precision`.
        value.enums.0 = External::Unit;
        let value = (&value.numbers, &value.texts, &value.lists, &value.structs.3, &value.enums,
            &value.keys, &value.library);
        let mut theirs = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut theirs)
            .with_struct_map()
            .with_human_readable();
        value.serialize(&mut serializer).unwrap();
        let ours = RawPayload::encode(Codec::MessagePack, &value).unwrap();
        prop_assert_eq!(ours.as_bytes(), &theirs[..]);
    }
}

#[test]
fn raw_json_is_a_value_like_any_other() {
    #[derive(Deserialize, Serialize)]
    struct Wrapped {
        body: Box<RawValue>,
        more: Option<Box<RawValue>>,
    }
    let text = r#"{ "id" : 7, "list": [1.5, null, "a\u00e9\n", {}] }"#;
    let body: Box<RawValue> = serde_json::from_str(text).unwrap();
    let wanted: Value = serde_json::from_str(text).unwrap();
    // The text is compared: a `Value` would also take serde_json's private form of raw JSON.
    let compact = r#"{"id":7,"list":[1.5,null,"aé\n",{}]}"#;
    for read in trips(&body) {
        assert_eq!(read.get(), compact);
    }
    let payload = RawPayload::encode(Codec::MessagePack, &body).unwrap();
    assert_eq!(payload.codec(), Codec::MessagePack);
    assert_eq!(payload.decode::<Value>().unwrap(), wanted);
    for read in trips(&Wrapped { body, more: None }) {
        assert_eq!(
            serde_json::from_str::<Value>(read.body.get()).unwrap(),
            wanted
        );
        assert!(read.more.is_none());
    }
    let other = RawPayload::encode(Codec::MessagePack, &wanted).unwrap();
    let raw: Box<RawValue> = other.decode().unwrap();
    assert_eq!(serde_json::from_str::<Value>(raw.get()).unwrap(), wanted);
}

#[test]
fn a_unit_struct_is_null_and_an_older_empty_array_is_read() {
    assert_eq!(trips(&Tick), [Tick, Tick, Tick, Tick]);
    let older = RawPayload::checked(Codec::MessagePack, Bytes::from_static(b"\x90")).unwrap();
    assert_eq!(older.decode::<Tick>().unwrap(), Tick);
}

#[test]
fn a_128_bit_integer_is_refused_wherever_it_stands() {
    #[derive(Serialize)]
    struct Wei {
        amount: u128,
    }
    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Transfer {
        Made { amount: i128 },
    }
    for codec in [Codec::MessagePack, Codec::Json] {
        let rules = [
            refused(codec, &5_u128),
            refused(codec, &Wei { amount: 5 }),
            refused(codec, &Transfer::Made { amount: -5 }),
            refused(codec, &HashMap::from([(1_u128, 1)])),
        ];
        for rule in rules {
            assert!(rule.contains("128-bit"), "{rule}");
        }
    }
    // What older processes have stored is still read.
    let older = rmp_serde::to_vec_named(&5_u128).unwrap();
    let older = RawPayload::checked(Codec::MessagePack, older.into()).unwrap();
    assert_eq!(older.decode::<u128>().unwrap(), 5);
}

#[test]
fn nan_and_infinity_survive_in_messagepack_and_json_refuses_them() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let packed = RawPayload::encode(Codec::MessagePack, &value).unwrap();
        assert_eq!(packed.decode::<f64>().unwrap().to_bits(), value.to_bits());
        assert!(refused(Codec::Json, &[value]).contains("NaN"));
        assert!(RawPayload::encode(Codec::Json, &(value as f32)).is_err());
    }
}

#[test]
fn a_key_that_json_lacks_is_refused_there() {
    let map = HashMap::from([((1, 2), 3)]);
    let packed = RawPayload::encode(Codec::MessagePack, &map).unwrap();
    assert_eq!(packed.decode::<HashMap<(i32, i32), i32>>().unwrap(), map);
    assert!(refused(Codec::Json, &map).contains("keys"));
}

#[test]
fn text_and_number_keys_stand_for_each_other() {
    let packed = RawPayload::encode(Codec::MessagePack, &BTreeMap::from([(7, true)])).unwrap();
    assert_eq!(packed.decode::<Value>().unwrap(), json!({"7": true}));
    let text = RawPayload::encode(Codec::MessagePack, &json!({"7": true})).unwrap();
    let read: BTreeMap<u64, bool> = text.decode().unwrap();
    assert_eq!(read, BTreeMap::from([(7, true)]));
    let wrong = text.decode::<BTreeMap<bool, bool>>().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Decode);
}

#[test]
fn a_number_that_messagepack_would_round_stays_json() {
    let text = r#"{"account":100000000000000000000001,"rate":0.1234567890123456789}"#;
    let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
    let payload = RawPayload::encode(Codec::MessagePack, &raw).unwrap();
    assert_eq!(
        (payload.codec(), payload.as_bytes()),
        (Codec::Json, text.as_bytes())
    );
    assert_eq!(payload.decode::<Box<RawValue>>().unwrap().get(), text);
    assert!(refused(Codec::MessagePack, &raw).contains("round"));
}

#[test]
fn a_serializer_that_announces_a_wrong_length_is_corrected() {
    struct Liar(usize, usize);
    impl Serialize for Liar {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq as _;
            let mut list = serializer.serialize_seq(Some(self.0))?;
            for n in 0..self.1 {
                list.serialize_element(&n)?;
            }
            list.end()
        }
    }
    for (announced, real) in [(0, 3), (3, 0), (3, 70_000), (70_000, 2)] {
        let payload = RawPayload::encode(Codec::MessagePack, &Liar(announced, real)).unwrap();
        assert_eq!(payload.decode::<Vec<usize>>().unwrap().len(), real);
    }
}

#[test]
fn an_extension_of_another_language_is_a_pair() {
    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename = "_ExtStruct")]
    struct Time((i8, Bytes));
    let bytes = Bytes::from_static(b"\xd6\xff\x65\x00\x00\x01");
    let payload = RawPayload::checked(Codec::MessagePack, bytes).unwrap();
    let wanted = Time((-1, Bytes::from_static(b"\x65\0\0\x01")));
    assert_eq!(payload.decode::<Time>().unwrap(), wanted);
    let json = payload.to_codec(Codec::Json).unwrap();
    assert_eq!(json.as_bytes(), b"[-1,[101,0,0,1]]");
    assert_eq!(json.decode::<Time>().unwrap(), wanted);
}

#[test]
fn a_payload_of_another_shape_is_an_error() {
    let encode = |value: &Value| RawPayload::encode(Codec::MessagePack, value).unwrap();
    assert!(encode(&json!([1, 2, 3])).decode::<(i32, i32)>().is_err());
    assert!(encode(&json!([1])).decode::<(i32, i32)>().is_err());
    assert!(
        encode(&json!({"New": 1, "Unit": null}))
            .decode::<External>()
            .is_err()
    );
    assert!(encode(&json!("New")).decode::<External>().is_err());
    assert!(encode(&json!(-1)).decode::<u64>().is_err());
    assert!(encode(&json!("x")).decode::<i32>().is_err());
    let nothing = encode(&json!({"Unit": null})).decode::<External>();
    assert_eq!(nothing.unwrap(), External::Unit);
}
