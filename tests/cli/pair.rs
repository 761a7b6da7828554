//! `tail --json` and `publish --from`: a topic as lines, and back.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::run::{redstart, run, run_with};
use crate::support::Server;

/// The stored fields of an entry.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The stored fields of every entry of a topic.
fn stored(server: &Server, topic: &str) -> Vec<Fields> {
    let log = format!("{{shop:{topic}}}:log");
    let entries: Vec<(String, Fields)> = server.command(&["XRANGE", &log, "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields).collect()
}

fn msgpack(envelope: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::try_from(envelope.len()).unwrap()];
    for (name, value) in envelope {
        bytes.push(0xa0 | u8::try_from(name.len()).unwrap());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xd9, u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    if text.len() < 32 {
        bytes = vec![0xa0 | u8::try_from(text.len()).unwrap()];
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad90";

/// Entries whose payload, key, correlation id or headers are hard to carry, as the library writes them.
fn hostile(server: &Server) {
    let key = "k\u{202e}\u{1b}[2J\n\"<script>";
    let packed: [&[u8]; 7] = [
        // Binary that is no UTF-8.
        b"\xc4\x04\xff\xfe\x00\x80",
        // The largest number, and one in a longer form than it needs.
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xcd\x00\x01",
        // A 32-bit float, and no number at all.
        b"\xca\x3f\xc0\x00\x00",
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
        // A map with a list and with a number as keys, and an extension.
        b"\x82\x91\x01\x02\x05\xa1x",
        b"\xd4\x07\x01",
    ];
    for payload in packed {
        let headers = [&b"\x81"[..], &text("h\u{0}"), &text("v\u{2028}=")].concat();
        let value = msgpack(&[
            ("id", &text(ID)),
            ("type", &text("t")),
            ("ts", &text("2025-11-12T14:20:00.123Z")),
            ("corrId", &text("\u{feff}c")),
            ("tenantId", &text("")),
            ("key", &text(key)),
            ("headers", &headers),
            ("payload", payload),
            ("attempts", b"\x00"),
            ("unknown", b"\xc4\x01\xff"),
        ]);
        add(server, "msgpack", &value);
    }
    let key = serde_json::to_string(key).unwrap();
    for payload in [
        "{\"n\":100000000000000000000001}",
        "[-0.0,1.50,1e400,12345678901234567890]",
        "{\"a\":1,\"a\":2}",
        "[\n  1,\t2 ]",
        "\"\u{202e}\u{200b}\u{7f}\"",
        "\"\\u0000\\ud800\"",
    ] {
        let value = format!(
            "{{\"id\":\"{ID}\",\"type\":\"t\",\"ts\":\"2025-11-12T14:20:00.123Z\",\"key\":{key},\
             \"headers\":{{\"h\":\"\"}},\"payload\":{payload},\"attempts\":0,\"x\":1.0}}"
        );
        add(server, "json", value.as_bytes());
    }
}

fn add(server: &Server, name: &str, value: &[u8]) {
    let mut command = redis::cmd("XADD");
    command
        .arg("{shop:orders}:log")
        .arg("*")
        .arg(name)
        .arg(value);
    let _: String = command.query(&mut server.raw()).unwrap();
}

#[test]
fn a_copy_of_a_topic_by_lines_has_every_byte() {
    let server = Server::start();
    let url = server.url();
    hostile(&server);
    let tail = ["tail", "orders", "--from-beginning", "--json"];
    let lines = run(Some(&url), &tail).ok().out;
    let entries = stored(&server, "orders");
    assert_eq!(lines.lines().count(), entries.len(), "{lines}");
    // Both codecs stay, whatever the codec of the settings.
    for codec in ["msgpack", "json"] {
        let copy = format!("copy-{codec}");
        let mut command = redstart(Some(&url), &["publish", &copy, "--from", "-"]);
        command.env("REDSTART_CODEC", codec);
        let ran = run_with(command, &*lines).ok();
        assert_eq!(ran.out, format!("{} published to {copy}\n", entries.len()));
        for (number, (copied, original)) in stored(&server, &copy).iter().zip(&entries).enumerate()
        {
            assert_eq!(copied, original, "entry {number} of {copy}");
        }
        // The lines of the copy are the same, but for the ids of the entries.
        let again = run(Some(&url), &["tail", &copy, "--from-beginning", "--json"])
            .ok()
            .out;
        let without_id = |line: &str| line.split_once(',').unwrap().1.to_owned();
        let (again, lines) = (again.lines().map(without_id), lines.lines().map(without_id));
        assert!(again.eq(lines));
    }
    // No line has a raw mark that reverses or hides text.
    assert!(!lines.contains(['\u{202e}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{1b}']));
}

#[test]
fn a_file_of_lines_is_published_and_its_flawed_lines_are_named() {
    let server = Server::start();
    let url = server.url();
    add(&server, "msgpack", b"\xc1");
    add(&server, "other", b"x");
    add(&server, "json", br#"{"type":"t","payload":{"n":1}}"#);
    let lines = run(
        Some(&url),
        &["tail", "orders", "--from-beginning", "--json"],
    )
    .ok()
    .out;
    let listed: Vec<Value> = lines
        .lines()
        .map(|one| serde_json::from_str(one).unwrap())
        .collect();
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        names(&listed[0]),
        ["fields", "id", "undecodable"].map(str::to_owned).into()
    );
    assert_eq!(
        names(&listed[2]),
        ["codec", "envelope", "id"].map(str::to_owned).into()
    );
    assert_eq!(listed[2]["codec"], "json");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    std::fs::write(&file, format!("{lines}\n{{\"id\":\"1-1\"}}\n")).unwrap();
    let file = file.to_str().unwrap();
    let ran = run(Some(&url), &["publish", "copy", "--from", file]).failed(1);
    assert_eq!(ran.out, "1 published to copy, 3 failed\n");
    for rule in [
        "line 1: ",
        "line 2: read entry: no field named",
        "line 5: ",
        "neither `envelope` nor `fields`",
    ] {
        assert!(ran.err.contains(rule), "{rule}: {ran:?}");
    }
    assert_eq!(stored(&server, "copy").len(), 1);
    // The message keeps the id that it had in the first topic.
    let copied = run(Some(&url), &["tail", "copy", "--json"]).ok().json();
    assert_eq!(copied["envelope"]["id"], listed[2]["envelope"]["id"]);

    let missing = run(Some(&url), &["publish", "copy", "--from", "/nowhere/lines"]).failed(2);
    assert!(missing.err.contains("/nowhere/lines: "), "{missing:?}");
    run(
        Some(&url),
        &["publish", "copy", "--from", "-", "--key", "k"],
    )
    .failed(2);
}
