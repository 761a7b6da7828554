//! Entry points for untrusted bytes, one function each. Fuzzing calls them, and a test runs them on
//! the corpus. They never panic or hang, and their memory stays in proportion to the input.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{
    Codec, ConsumerName, DeadLetter, DeadLetterFilter, EntryId, Group, Namespace, Selection, Topic,
};
use crate::store::{Fields, JournalRow, Record};
use crate::wire::redelivery::Redelivery;
use crate::wire::{Limits, dead_letter, decode_entry, encode_entry, value};

/// A function that reads untrusted bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("entry", entry),
    ("value", kv_value),
    ("dead_letter", dead_letter),
    ("export", export),
    ("filter", filter),
    ("reply", crate::adapters::redis::read_reply),
    ("names", names),
    ("url", url),
];

fn topic() -> Topic {
    Topic::new("orders").unwrap_or_else(|e| unreachable!("{e}"))
}

/// An entry of a topic. The first byte selects the name of its field.
pub fn entry(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let name: &[u8] = if first % 2 == 0 { b"msgpack" } else { b"json" };
    let id = EntryId::new(1, 2);
    let read =
        |name: &[u8], value: &[u8]| decode_entry(&topic(), id, [(name, value)], Limits::default());
    let Ok(envelope) = read(name, rest) else {
        return;
    };
    // A decoded envelope can be encoded again and decodes to the same envelope.
    let codec = Codec::from_name(name).unwrap_or_default();
    if let Ok((name, stored)) = encode_entry(&envelope, codec, Limits::default()) {
        let again = read(name.as_bytes(), &stored);
        assert_eq!(again.ok().as_ref(), Some(&envelope), "stored again");
    }
}

/// A value of the key-value store.
pub fn kv_value(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = value::decode::<String>(&bytes);
    let _ = value::decode::<u64>(&bytes);
    if let Ok(read) = value::decode::<serde_json::Value>(&bytes) {
        for codec in [Codec::Json, Codec::MessagePack] {
            let _ = value::encode(codec, &read);
        }
    }
}

/// The summary and the body of a dead letter, and an entry of a redelivery stream.
pub fn dead_letter(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    for name in ["parcel", "dead"] {
        let fields: Fields = vec![(Bytes::from_static(name.as_bytes()), body.clone())];
        let _ = Redelivery::decode(&fields);
    }
    let (head, body) = match bytes.split_first() {
        Some((at, rest)) => rest.split_at(usize::from(*at).min(rest.len())),
        None => return,
    };
    if let Ok(head) = dead_letter::decode_head(head) {
        let body = Bytes::copy_from_slice(body);
        let group = Group::new("billing").unwrap_or_else(|e| unreachable!("{e}"));
        let record = Record { head, body };
        let _ = dead_letter::decode_record(&topic(), &group, EntryId::default(), record);
    }
}

/// A line of an export.
pub fn export(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(letter) = DeadLetter::from_json(text) {
        let again = DeadLetter::from_json(&letter.to_json());
        assert_eq!(again.ok().as_ref(), Some(&letter), "exported again");
    }
}

/// The order of a journal entry, with the filter of a sweep.
pub fn filter(bytes: &[u8]) {
    let Ok(order) = std::str::from_utf8(bytes) else {
        return;
    };
    let row = JournalRow {
        id: Uuid::nil(),
        order: order.to_owned(),
        taken: 0,
        cursor: None,
        result: None,
    };
    let Some(operation) = crate::operate::dead_letters::journal_entry(row) else {
        return;
    };
    if let Some(Selection::Matching(filter)) = operation.selection {
        let _ = filter.to_string();
        let json = serde_json::to_string(&filter).unwrap_or_default();
        let again = serde_json::from_str::<DeadLetterFilter>(&json);
        assert_eq!(again.ok().as_ref(), Some(&*filter), "written again");
    }
}

/// Names, times, ids and settings in text.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let accepted = [
        Topic::new(text).is_ok(),
        Group::new(text).is_ok(),
        Namespace::new(text).is_ok(),
        ConsumerName::new(text).is_ok(),
    ];
    if accepted.contains(&true) {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        assert!(text.chars().all(harmless), "{text:?} is not a valid name");
    }
    let _ = text.parse::<EntryId>();
    let _ = text.parse::<crate::envelope::Timestamp>();
    let _ = text.parse::<crate::topics::Retention>();
}

/// The URL of a server. An error never quotes a refused URL.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let told = |text| {
        let refused = crate::adapters::redis::check_url(text).err();
        refused.map_or_else(String::new, |error| format!("{error} {error:?}"))
    };
    // The text may also be a part of the fixed error text.
    let always = [
        "",
        "x",
        "redis://h/x",
        "redis://h:x",
        "rediss://h/#x",
        "unix:?",
    ]
    .map(told);
    let is_quoted = text.len() >= 12 && told(text).contains(text);
    assert!(
        !is_quoted || always.iter().any(|rule| rule.contains(text)),
        "{}",
        told(text)
    );
}
