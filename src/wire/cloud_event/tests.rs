//! Events in both directions.

use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn read(event: &Json) -> Envelope {
    Envelope::from_cloud_event(event.to_string().as_bytes()).unwrap()
}

fn rule(event: &Json) -> String {
    let error = Envelope::from_cloud_event(event.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    error.to_string()
}

fn write(envelope: &Envelope) -> Json {
    serde_json::from_str(&envelope.to_cloud_event("/shop/orders").unwrap()).unwrap()
}

fn event() -> Json {
    json!({
        "specversion": "1.0", "id": "A234-1234-1234", "source": "/mycontext", "type": "com.example.someevent",
        "subject": "order-7", "time": "2018-04-05T17:31:00Z", "datacontenttype": "application/json",
        "correlationid": "c", "tenantid": "acme",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "comexampleextension1": "value", "comexampleothervalue": 5, "flag": true,
        "data": {"appinfoA": "abc", "appinfoB": 123}
    })
}

#[test]
fn each_attribute_has_its_part() {
    let read = read(&event());
    assert_eq!(read.message_type(), "com.example.someevent");
    assert_eq!(read.id(), derived_id("/mycontext", "A234-1234-1234"));
    assert_eq!(read.headers()["ce-id"], "A234-1234-1234");
    assert_eq!(read.headers()["ce-source"], "/mycontext");
    assert_eq!(read.key(), Some("order-7"));
    assert_eq!(read.created_at().to_string(), "2018-04-05T17:31:00.000Z");
    assert_eq!(read.headers()["ce-time"], "2018-04-05T17:31:00Z");
    assert_eq!(
        (read.correlation(), read.tenant()),
        (Some("c"), Some("acme"))
    );
    assert!(read.headers()["traceparent"].starts_with("00-4bf9"));
    assert_eq!(read.headers()["ce-datacontenttype"], "application/json");
    assert_eq!(read.headers()["ce-comexampleextension1"], "value");
    assert_eq!(read.headers()["ce-comexampleothervalue"], "5");
    assert_eq!(read.payload::<Json>().unwrap(), event()["data"]);
    assert_eq!(write(&read), event());
}

#[test]
fn a_uuid_stays_the_id() {
    let mut event = event();
    event["id"] = json!("0190163D-8694-739b-aea5-966c26f8ad90");
    let once = read(&event);
    assert_eq!(
        once.id().to_string(),
        "0190163d-8694-739b-aea5-966c26f8ad90"
    );
    assert_eq!(write(&once), event, "in upper case too");
    event["id"] = json!("0190163d-8694-739b-aea5-966c26f8ad90");
    assert!(!read(&event).headers().contains_key("ce-id"));
}

#[test]
fn one_id_of_two_sources_names_two_messages() {
    let mut other = event();
    other["source"] = json!("/other");
    assert_ne!(read(&other).id(), read(&event()).id());
    assert_eq!(read(&event()).id(), read(&event()).id());
}

#[test]
fn an_id_that_belongs_to_another_message_is_not_written() {
    let other = Envelope::new("t", &1).unwrap().with_header("ce-id", "7");
    assert_eq!(write(&other)["id"], json!(other.id().to_string()));
}

#[test]
fn a_binary_payload_is_base64() {
    let mut event = event();
    let parts = event.as_object_mut().unwrap();
    parts.remove("data");
    parts.insert("data_base64".to_owned(), json!("AP8B"));
    parts.insert("datacontenttype".to_owned(), json!("image/png"));
    let once = read(&event);
    assert_eq!(once.payload::<Bytes>().unwrap(), &b"\x00\xff\x01"[..]);
    assert_eq!(write(&once), event);
    let bare = Envelope::new("t", &Bytes::from_static(b"\xff")).unwrap();
    assert_eq!(
        write(&bare)["datacontenttype"],
        json!("application/octet-stream")
    );
    assert_eq!(write(&bare)["data_base64"], json!("/w=="));
    assert!(
        !read(&write(&bare))
            .headers()
            .contains_key("ce-datacontenttype")
    );
}

#[test]
fn every_digit_of_the_data_stays() {
    let text = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":1.50,"m":100000000000000000000001}}"#;
    let read = Envelope::from_cloud_event(text.as_bytes()).unwrap();
    let written = read.to_cloud_event("x").unwrap();
    assert!(
        written.contains(r#""data":{"n":1.50,"m":100000000000000000000001}"#),
        "{written}"
    );
}

#[test]
fn headers_and_unknown_fields_of_an_envelope_stay() {
    let mut envelope = Envelope::new("t", &1).unwrap();
    for name in [
        "Content-Language",
        "ce-type",
        "ce-a-b",
        "ce-",
        "",
        "ce-json-values",
    ] {
        envelope.set_header(name, "x,y");
    }
    envelope.unknown.insert(
        "future".to_owned(),
        RawPayload::encode(Codec::Json, &json!({"a": [1]})).unwrap(),
    );
    let again = read(&write(&envelope));
    let mut headers = again.headers().clone();
    assert_eq!(headers.remove("ce-source").unwrap(), "/shop/orders");
    assert_eq!(&headers, envelope.headers());
    assert_eq!(again.unknown, envelope.unknown);
}

#[test]
fn an_event_that_breaks_a_rule_names_it() {
    for (name, value, said) in [
        (
            "specversion",
            json!("0.3"),
            "specversion \"0.3\" is not supported",
        ),
        ("specversion", json!(1.0), "\"specversion\" must be a text"),
        ("specversion", Json::Null, "\"specversion\" is missing"),
        ("id", json!(""), "\"id\" is missing"),
        ("source", Json::Null, "\"source\" is missing"),
        ("type", Json::Null, "\"type\" is missing"),
        (
            "time",
            json!("yesterday"),
            "\"time\" is not an RFC 3339 time",
        ),
        ("data_base64", json!("AP8B"), "exclude each other"),
        ("subject", json!(7), "\"subject\" must be a text"),
        ("a-b", json!(7), "a name has letters and digits only"),
        ("redstartheaders", json!("{"), "the text of a JSON object"),
    ] {
        let mut event = event();
        event[name] = value;
        assert!(rule(&event).contains(said), "{said}: {}", rule(&event));
    }
    assert!(rule(&json!([event()])).contains("not a CloudEvent"));
    let mut event = event();
    event.as_object_mut().unwrap().remove("data");
    event["data_base64"] = json!("%");
    assert!(rule(&event).contains("data_base64"));
    let empty = Envelope::new("", &1).unwrap();
    assert!(
        empty
            .to_cloud_event("/s")
            .unwrap_err()
            .to_string()
            .contains("type is empty")
    );
    let typed = Envelope::new("t", &1).unwrap();
    assert!(
        typed
            .to_cloud_event("")
            .unwrap_err()
            .to_string()
            .contains("source is empty")
    );
}

fn values() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        prop::collection::vec(any::<u8>().prop_map(Json::from), 0..4).prop_map(Json::from),
        prop::collection::btree_map(".{0,4}", any::<i64>().prop_map(Json::from), 0..4)
            .prop_map(|map| map.into_iter().collect()),
    ]
}

fn extensions() -> impl Strategy<Value = BTreeMap<String, Json>> {
    let value = prop_oneof![
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    // No name of an attribute of its own begins with x.
    prop::collection::btree_map("x[a-z0-9]{0,8}", value, 0..5)
}

proptest! {
    #[test]
    fn events_come_out_as_they_came_in(
        id in "[!-~]{1,12}", source in ".{1,12}", kind in ".{1,12}", data in values(),
        subject in prop::option::of(".{1,8}"), nanos in 0_u32..1_000_000_000,
        extensions in extensions(), content in prop::option::of("[a-z]{1,8}/[a-z]{1,8}")
    ) {
        let mut event = json!({"specversion": "1.0", "id": id, "source": source, "type": kind});
        event["time"] = json!(format!("2026-01-02T03:04:05.{nanos:09}+01:00"));
        if let Some(subject) = subject { event["subject"] = json!(subject); }
        if let Some(content) = content { event["datacontenttype"] = json!(content); }
        if !data.is_null() { event["data"] = data; }
        for (name, value) in extensions { event[name] = value; }
        let again = write(&read(&event));
        prop_assert_eq!(&again, &event);
    }

    #[test]
    fn envelopes_come_back_from_an_event(
        kind in ".{1,20}", payload in values(), key in prop::option::of(".{1,10}"),
        tenant in prop::option::of(".{1,5}"), binary in any::<Option<Vec<u8>>>(),
        headers in prop::collection::btree_map("(ce-)?[a-zA-Z0-9 -]{0,8}", ".{0,8}", 0..5)
    ) {
        let mut envelope = Envelope::new(kind, &payload).unwrap();
        if let Some(binary) = &binary {
            envelope.payload = RawPayload::encode(Codec::MessagePack, &Bytes::copy_from_slice(binary)).unwrap();
        }
        envelope.key = key;
        envelope.tenant = tenant;
        envelope.headers = headers;
        let again = read(&write(&envelope));
        match binary {
            Some(binary) => prop_assert_eq!(&again.payload::<Bytes>().unwrap()[..], &binary[..]),
            None => prop_assert_eq!(again.payload::<Json>().unwrap(), payload),
        }
        let mut headers = again.headers.clone();
        if !envelope.headers.contains_key("ce-source") {
            headers.remove("ce-source");
        }
        prop_assert_eq!(headers, envelope.headers.clone());
        prop_assert_eq!(
            (again.id, again.message_type, again.created_at, again.key, again.tenant, again.correlation),
            (envelope.id, envelope.message_type, envelope.created_at, envelope.key, envelope.tenant, envelope.correlation)
        );
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }
}
