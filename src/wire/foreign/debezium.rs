//! Change events as the Redis sink of Debezium Server writes them.

use serde_json::value::RawValue;

use super::text::{Members, members, payload, scalar, string};
use super::{ForeignEntry, is_envelope_field};
use crate::domain::{Envelope, Timestamp};

/// Debezium's text for an absent key or value, unless its settings say otherwise.
const NULL: &str = "default";

/// Reads the entries of Debezium Server's Redis sink, in both of its message formats, as JSON with or
/// without schemas.
///
/// | Part of the envelope | Comes from |
/// |---|---|
/// | type | the table and the operation: `orders.create`, `.update`, `.delete`, `.read` (snapshot), `.truncate`; `debezium.tombstone`; of a record without an operation (outbox router, unwrapped state) its header `eventType` or `type`, else `debezium.record` |
/// | payload | the change event, without its schema; `null` for a tombstone |
/// | key | the record's key: the value of a key with one column, else the key's JSON |
/// | id | the header `id`, if it is a UUID, as the outbox router sets it; else derived from the entry |
/// | ts | `ts_ms` of the event, else of its source, else the time of the entry |
/// | headers | every field besides `key` and `value` |
///
/// Debezium writes `default` for an absent key or value; leave `null.key` and `null.value` of the sink
/// as they are.
pub fn debezium()
-> impl Fn(&ForeignEntry<'_>) -> Result<Option<Envelope>, String> + Send + Sync + 'static {
    |entry| match record(entry) {
        Some(record) => record.envelope(entry).map(Some),
        None => Ok(None),
    }
}

/// A record of the sink.
struct Record<'a> {
    key: &'a str,
    value: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

/// The record of an entry that looks like one. Message format `extended` has the fields `key` and
/// `value`; `compact` has one field, the key with the value.
fn record<'a>(entry: &ForeignEntry<'a>) -> Option<Record<'a>> {
    if let (Some(key), Some(value)) = (entry.get("key"), entry.get("value")) {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let others = entry.fields();
        let others = others.filter(|(name, _)| !matches!(*name, b"key" | b"value"));
        let headers = others.map(|(name, value)| Some((text(name)?, text(value)?)));
        return Some(Record {
            key: text(key)?,
            value: text(value)?,
            headers: headers.collect::<Option<_>>()?,
        });
    }
    let mut fields = entry.fields();
    let (Some((key, value)), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (key, value) = (
        std::str::from_utf8(key).ok()?,
        std::str::from_utf8(value).ok()?,
    );
    let is_record = value == NULL || value.trim_start().starts_with('{');
    (is_record && !is_envelope_field(key.as_bytes())).then(|| Record {
        key,
        value,
        headers: Vec::new(),
    })
}

impl Record<'_> {
    fn envelope(self, entry: &ForeignEntry<'_>) -> Result<Envelope, String> {
        let event = match self.value {
            NULL => "null",
            value => {
                let raw: &RawValue = serde_json::from_str(value)
                    .map_err(|error| format!("the value of the record is not JSON: {error}"))?;
                without_schema(raw)
            }
        };
        let parts = members(event).unwrap_or_default();
        let header = |name: &str| {
            let mut found = self.headers.iter().filter(|(one, _)| *one == name);
            found.next().map(|(_, value)| plain(value))
        };
        let message_type = match (event, operation(&parts)) {
            ("null", _) => "debezium.tombstone".to_owned(),
            (_, Some(operation)) => operation,
            (_, None) => header("eventType")
                .or_else(|| header("type"))
                .unwrap_or_else(|| "debezium.record".to_owned()),
        };
        let mut envelope = entry.wrap(message_type, payload(event)?);
        envelope.key = Some(self.key).filter(|key| *key != NULL).map(plain);
        if let Some(time) = time(&parts) {
            envelope.created_at = time;
        }
        if let Some(id) = header("id").and_then(|id| uuid::Uuid::try_parse(&id).ok()) {
            envelope.id = id;
        }
        for (name, value) in self.headers {
            envelope.set_header(name, plain(value));
        }
        Ok(envelope)
    }
}

/// The part of a JSON value that is not its schema.
fn without_schema(raw: &RawValue) -> &str {
    match members(raw.get()) {
        Some(parts) if parts.len() == 2 && parts.contains_key("schema") => parts
            .get("payload")
            .map_or(raw.get(), |payload| payload.get()),
        _ => raw.get(),
    }
}

/// A key or a header as text: the value of one column, else the JSON, else the text itself.
fn plain(text: &str) -> String {
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else {
        return text.to_owned();
    };
    let json = without_schema(raw);
    let Ok(raw) = serde_json::from_str::<&RawValue>(json) else {
        return json.to_owned();
    };
    let only = members(json).filter(|parts| parts.len() == 1);
    let only = only.and_then(|parts| scalar(parts.values().next()?));
    only.or_else(|| scalar(raw))
        .unwrap_or_else(|| json.to_owned())
}

/// The type of a change event: its table and its operation.
fn operation(event: &Members<'_>) -> Option<String> {
    let code = string(event.get("op")?)?;
    let verb = match code.as_str() {
        "c" => "create",
        "u" => "update",
        "d" => "delete",
        "r" => "read",
        "t" => "truncate",
        "m" => "message",
        other => other,
    };
    let source = event.get("source").and_then(|source| members(source.get()));
    let source = source.unwrap_or_default();
    let table = source.get("table").or_else(|| source.get("collection"));
    let table = table.and_then(|table| string(table));
    Some(format!("{}.{verb}", table.as_deref().unwrap_or("debezium")))
}

fn time(event: &Members<'_>) -> Option<Timestamp> {
    let of = |parts: &Members<'_>| {
        let millis = parts.get("ts_ms")?.get().parse().ok()?;
        Timestamp::from_millis(millis).ok()
    };
    of(event).or_else(|| of(&members(event.get("source")?.get())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::foreign::tests::decode;
    use serde_json::{Value, json};

    const EVENT: &str = r#"{"before":null,"after":{"id":7,"cents":1.50},"source":{"db":"shop",
        "table":"orders","ts_ms":1762957100000},"op":"c","ts_ms":1762957100123}"#;

    fn read(fields: &[(&str, &str)]) -> Envelope {
        decode(debezium(), fields).unwrap()
    }

    #[test]
    fn both_formats_with_and_without_schemas_give_one_message() {
        let with_schema =
            |json: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{json}}}"#);
        let key = r#"{"id":7}"#;
        let (long_key, long_event) = (with_schema(key), with_schema(EVENT));
        let plain = read(&[(key, EVENT)]);
        assert_eq!(plain.message_type(), "orders.create");
        assert_eq!(plain.key(), Some("7"));
        assert_eq!(plain.created_at().as_millis(), 1_762_957_100_123);
        let event: Value = plain.payload().unwrap();
        assert_eq!(event["after"], json!({"id": 7, "cents": 1.5}));
        for fields in [
            &[(&*long_key, &*long_event)][..],
            &[("key", key), ("value", EVENT)],
            &[("key", &long_key), ("value", &long_event)],
        ] {
            assert_eq!(read(fields), plain, "{fields:?}");
        }
    }

    #[test]
    fn each_operation_has_a_type() {
        for (op, kind) in [
            ("c", "orders.create"),
            ("u", "orders.update"),
            ("d", "orders.delete"),
            ("r", "orders.read"),
            ("t", "orders.truncate"),
            ("m", "orders.message"),
            ("x", "orders.x"),
        ] {
            let event = EVENT.replace("\"op\":\"c\"", &format!("\"op\":\"{op}\""));
            assert_eq!(read(&[("{\"id\":7}", &event)]).message_type(), kind);
        }
    }

    #[test]
    fn a_tombstone_has_the_key_and_no_payload() {
        for fields in [
            &[(r#"{"id":7}"#, "default")][..],
            &[("key", r#"{"id":7}"#), ("value", "default")],
            &[("key", r#"{"id":7}"#), ("value", "null")],
            &[
                ("key", r#"{"id":7}"#),
                ("value", r#"{"schema":null,"payload":null}"#),
            ],
        ] {
            let read = read(fields);
            assert_eq!(read.message_type(), "debezium.tombstone", "{fields:?}");
            assert_eq!(read.key(), Some("7"));
            assert_eq!(read.payload::<Value>().unwrap(), Value::Null);
        }
    }

    #[test]
    fn keys_become_text() {
        for (key, text) in [
            ("default", None),
            (r#"{"id":"a"}"#, Some("a")),
            (r#"{"a":1,"b":2}"#, Some(r#"{"a":1,"b":2}"#)),
            ("\"order-7\"", Some("order-7")),
            ("order-7", Some("order-7")),
            ("7", Some("7")),
        ] {
            assert_eq!(read(&[(key, EVENT)]).key(), text, "{key}");
        }
    }

    #[test]
    fn an_event_of_the_outbox_router_has_its_own_id_and_type() {
        let id = "0190163d-8694-739b-aea5-966c26f8ad90";
        let read = read(&[
            ("key", "order-7"),
            ("value", r#"{"cents":1250}"#),
            ("id", &format!("\"{id}\"")),
            ("eventType", "order.placed"),
        ]);
        assert_eq!(read.id().to_string(), id);
        assert_eq!(read.message_type(), "order.placed");
        assert_eq!(read.headers()["eventType"], "order.placed");
        let bare = decode(debezium(), &[("k", r#"{"cents":1250}"#)]).unwrap();
        assert_eq!(bare.message_type(), "debezium.record");
    }

    #[test]
    fn a_broken_record_names_its_rule_and_another_entry_is_not_read() {
        let rule = decode(debezium(), &[("key", "1"), ("value", "{")]).unwrap_err();
        assert!(rule.contains("not JSON"), "{rule}");
        for fields in [
            &[("user", "7")][..],
            &[("json", "{}")],
            &[("a", "{}"), ("b", "{}")],
        ] {
            let rule = decode(debezium(), fields).unwrap_err();
            assert!(!rule.contains("record"), "{fields:?}: {rule}");
        }
    }
}
