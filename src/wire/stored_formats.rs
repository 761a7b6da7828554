//! The stored formats, byte for byte: what an earlier process wrote, this one reads, and what this
//! one writes, an earlier process reads. A failing test here means that the format has changed.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{
    DeadLetter, DeadLetterFilter, DeliveryHistory, FailedAttempt, Group, Reason, Timestamp, Topic,
};
use crate::wire::Record;
use crate::wire::dead_letter::{decode_head, decode_record, encode_head, encode_record};
use crate::wire::redelivery::Redelivery;

const HEAD: &str = "9ba9657868617573746564a26631ac6f726465722e706c61636564a461636d65a4636f7272d92430\
         303030303030302d303030302d303030302d303030302d303030303030303030303037a96469736b\
         2066756c6c0302d92430303030303030302d303030302d303030302d303030302d30303030303030\
         3030303038a57468657265";
const BODY: &str = "84a670617263656c86a66669656c64739192c4046a736f6ec4077b2261223a317da66f726967696e\
         a3352d32ac66697273744661696c757265cf0000018bcfe56800a7686973746f72799184a66e756d\
         62657201a26174cf0000018bcfe56800a8636f6e73756d6572a3632d30a56572726f72a165a87265\
         64726976656e02aa726564726976656e4279c41000000000000000000000000000000008a768616e\
         646c6572a168a8636f6e73756d6572a3632d31ab6c6173744661696c757265cf0000018bcfe5687b";
const REDELIVERY: &str = "87a66669656c64739192c4046a736f6ec4077b2261223a317da66f726967696ea3352d32ac666972\
         73744661696c757265cf0000018bcfe56800a7686973746f72799184a66e756d62657201a26174cf\
         0000018bcfe56800a8636f6e73756d6572a3632d30a56572726f72a165a8726564726976656e02aa\
         726564726976656e4279c41000000000000000000000000000000008a4616e6577c3";
const EXPORTED: &str = r#"{"redstart":1,"id":"9-1","died":"1970-01-01T00:00:00.009Z","topic":"orders","group":"billing","reason":"exhausted","error":"disk full","fingerprint":"f1","handler":"h","consumer":"c-1","type":"order.placed","tenantId":"acme","corrId":"corr","messageId":"00000000-0000-0000-0000-000000000007","attempts":3,"lastFailure":"2023-11-14T22:13:20.123Z","origin":"5-2","firstFailure":"2023-11-14T22:13:20.000Z","history":[{"number":1,"at":"2023-11-14T22:13:20.000Z","consumer":"c-0","error":"e"}],"redriven":2,"redrivenBy":"00000000-0000-0000-0000-000000000008","importedFrom":"there","fields":[["json","{\"a\":1}"]]}"#;
const FILTER: &str = r#"{"reason":"rejected","fingerprint":"f","error":"x","errorPattern":"y+","type":"t","tenant":"a","corrId":"c","since":"1970-01-01T00:00:00.000Z","until":"1970-01-01T00:00:00.001Z","minAttempts":2,"maxAttempts":3,"redriven":true}"#;

fn bytes(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn dead_letter() -> DeadLetter {
    DeadLetter {
        id: "9-1".parse().unwrap(),
        topic: Topic::new("orders").unwrap(),
        group: Group::new("billing").unwrap(),
        reason: Reason::Exhausted,
        error: "disk full".into(),
        fingerprint: "f1".into(),
        handler: "h".into(),
        consumer: "c-1".into(),
        message_type: "order.placed".into(),
        tenant: Some("acme".into()),
        correlation: Some("corr".into()),
        message_id: Some(Uuid::from_u128(7)),
        attempts: 3,
        last_failure: at(1_700_000_000_123),
        history: DeliveryHistory {
            origin: "5-2".parse().unwrap(),
            first_failure: Some(at(1_700_000_000_000)),
            failures: vec![FailedAttempt {
                number: 1,
                at: at(1_700_000_000_000),
                consumer: "c-0".into(),
                error: "e".into(),
            }],
            redriven: 2,
            redriven_by: Some(Uuid::from_u128(8)),
        },
        fields: vec![(
            Bytes::from_static(b"json"),
            Bytes::from_static(b"{\"a\":1}"),
        )],
        imported_from: Some("there".into()),
    }
}

#[test]
fn a_stored_dead_letter_keeps_its_bytes() {
    let dead_letter = dead_letter();
    let record = encode_record(&dead_letter);
    assert_eq!(hex(&encode_head(&record.head)), HEAD);
    assert_eq!(hex(&record.body), BODY);
    let stored = Record {
        head: decode_head(&bytes(HEAD)).unwrap(),
        body: bytes(BODY),
    };
    let read = decode_record(
        &dead_letter.topic,
        &dead_letter.group,
        dead_letter.id,
        stored,
    )
    .unwrap();
    assert_eq!(read, dead_letter);
}

#[test]
fn a_stored_redelivery_keeps_its_bytes() {
    let dead_letter = dead_letter();
    let redelivery = Redelivery {
        fields: dead_letter.fields,
        history: dead_letter.history,
        starts_over: true,
    };
    assert_eq!(hex(&redelivery.encode()), REDELIVERY);
    let stored = vec![(Bytes::from_static(b"parcel"), bytes(REDELIVERY))];
    assert_eq!(Redelivery::decode(&stored).unwrap(), redelivery);
}

#[test]
fn an_exported_line_keeps_its_bytes() {
    assert_eq!(dead_letter().to_json(), EXPORTED);
    assert_eq!(DeadLetter::from_json(EXPORTED).unwrap(), dead_letter());
    let first = EXPORTED.replace("\"messageId\"", "\"message\"");
    let first = first.replace(r#""died":"1970-01-01T00:00:00.009Z","#, "");
    assert_ne!(first, EXPORTED);
    let read = DeadLetter::from_json(&first).unwrap();
    assert_eq!(read, dead_letter(), "a line of the first version");
}

#[test]
fn a_filter_in_the_journal_keeps_its_bytes() {
    let filter = DeadLetterFilter::default()
        .with_reason(Reason::Rejected)
        .with_fingerprint("f")
        .with_error("x")
        .unwrap()
        .with_error_pattern("y+")
        .unwrap()
        .with_message_type("t")
        .with_tenant("a")
        .with_correlation("c")
        .with_since(at(0))
        .with_until(at(1))
        .with_min_attempts(2)
        .with_max_attempts(3)
        .with_redriven(true);
    assert_eq!(serde_json::to_string(&filter).unwrap(), FILTER);
    assert_eq!(
        serde_json::from_str::<DeadLetterFilter>(FILTER).unwrap(),
        filter
    );
}
