//! `dead edit`: a dead letter changed on its way back.

use std::collections::BTreeSet;

use redstart::{Delivery, Outcome};

use crate::dead::{bury, counts, delivered, id, list};
use crate::run::{redstart, run_with};
use crate::support::{Server, container, finish, group, letters, topic, until};
use crate::terminal::Terminal;

#[test]
fn editing_is_off_and_then_makes_a_new_message() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 4);
    let all: Vec<String> = list(&url, &[]).iter().map(id).collect();
    let on = [("REDSTART_DEAD_LETTER_EDITING", "true"), ("VISUAL", "")];
    let edit = |id: &str, rest: &[&str], input: &str, on: bool| {
        let all = [&["dead", "edit", "orders", "billing", id, "--json"], rest].concat();
        let mut command = redstart(Some(&url), &all);
        if on {
            command.env("REDSTART_DEAD_LETTER_EDITING", "true");
        }
        run_with(command, input)
    };
    let patch = r#"{"payload": {"cents": 99}}"#;
    let ran = edit(&all[0], &["--patch", "-"], patch, false).failed(1);
    assert!(ran.err.contains("editing is off"), "{ran:?}");
    edit(&all[0], &["--patch", "-"], "{}", true).failed(1);
    for (patch, rule) in [
        ("{", "the standard input is not JSON"),
        ("[1]", "the standard input is not a JSON patch"),
        (r#"{"type": null}"#, "the edited message is not an envelope"),
        (
            r#"{"tenant": "acme"}"#,
            "the edited message has an unknown field `tenant`",
        ),
    ] {
        let ran = edit(&all[0], &["--patch", "-"], patch, true).failed(2);
        assert!(ran.err.contains(rule), "{ran:?}");
    }
    edit("1-1", &["--file", "-"], "nonsense", true).failed(2);
    let elsewhere = r#"[{"op": "remove", "path": "/payload/none"}]"#;
    let ran = edit(&all[0], &["--patch", "-"], elsewhere, true).failed(1);
    assert!(ran.err.contains("does not apply"), "{ran:?}");
    assert_eq!(counts(&url), (4, 0));
    let ran = edit(&all[0], &["--patch", "-"], patch, true).ok();
    let message = ran.json()["messageId"].as_str().unwrap().to_owned();
    assert_eq!(counts(&url), (3, 1));
    edit(&all[0], &["--patch", "-"], patch, true).failed(1);
    let steps = r#"[{"op": "replace", "path": "/payload/cents", "value": 98}]"#;
    edit(&all[1], &["--patch", "-"], steps, true).ok();

    // By hand: what is not JSON is refused, and edited again.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("editor");
    std::fs::write(
        &script,
        "if grep -q broken \"$1\"; then sed -i 's/broken//; s/1250/97/' \"$1\"; else echo broken >> \"$1\"; fi\n",
    )
    .unwrap();
    let editor = format!("sh {}", script.display());
    let variables = [&on[..], &[("EDITOR", &editor)]].concat();
    let args = ["dead", "edit", "orders", "billing", &all[2]];
    let mut terminal = Terminal::start_with(&url, 100, &args, &variables);
    terminal.sees("is not JSON");
    terminal.sees("Type edit to continue: ");
    terminal.types("edit");
    let (code, screen) = terminal.ends();
    assert!(
        code == 0 && screen.contains("redriven as message"),
        "{screen}"
    );
    // Who leaves the file as it is changes nothing.
    let variables = [&on[..], &[("EDITOR", "true")]].concat();
    let args = ["dead", "edit", "orders", "billing", &all[3]];
    let (code, screen) = Terminal::start_with(&url, 100, &args, &variables).ends();
    assert!(code == 1 && screen.contains("nothing was done"), "{screen}");
    assert_eq!(counts(&url), (1, 3));

    let seen = delivered(&server, 3);
    let cents: BTreeSet<u64> = seen
        .iter()
        .map(|one| one["cents"].as_u64().unwrap())
        .collect();
    assert_eq!(cents, BTreeSet::from([97, 98, 99]));
    assert!(seen.iter().any(|one| one["id"] == *message), "{seen:?}");
    assert!(
        seen.iter().all(|one| one["edited-from"].is_string()),
        "{seen:?}"
    );
}

/// A server with one dead letter, whose bytes no publisher of Redstart would write, and its id.
#[tokio::main(flavor = "current_thread")]
async fn bury_bytes(field: &str, bytes: &[u8]) -> (Server, String) {
    let server = Server::start();
    let container = container(&server).await;
    let rejects = |_: Delivery| async { Outcome::dead_letter("kept") };
    let bus = container.bus();
    let _subscription = bus.subscribe(&topic("orders"), rejects).await.unwrap();
    let () = redis::cmd("XADD")
        .arg(&["{shop:orders}:log", "*", field])
        .arg(bytes)
        .exec(&mut server.raw())
        .unwrap();
    let id = until("the dead letter", async || {
        let all = letters(&container, &topic("orders"), &group("billing")).await;
        all.first().map(|letter| letter.id.to_string())
    })
    .await;
    finish(container).await;
    (server, id)
}

/// The bytes of the only message that waits for redelivery.
fn redelivered(server: &Server) -> Vec<u8> {
    let stream = ["XRANGE", "{shop:orders}:group:billing:redo", "-", "+"];
    let entries: Vec<(String, Vec<Vec<u8>>)> = redis::cmd(stream[0])
        .arg(&stream[1..])
        .query(&mut server.raw())
        .unwrap();
    assert_eq!(entries.len(), 1);
    entries[0].1.concat()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// An order whose payload is bytes of MessagePack.
fn order(payload: &[u8]) -> Vec<u8> {
    [&b"\x82\xa4type\xacorder.placed\xa7payload"[..], payload].concat()
}

#[test]
fn an_edit_keeps_what_json_cannot_hold() {
    // {"n": 1, "blob": <binary 0 255>, "wide": 7 in eight bytes, 5: "five", "when": <extension 255>,
    // "list": [<binary 9>, 2]}
    let kept = b"\xa4blob\xc4\x02\0\xff\xa4wide\xcf\0\0\0\0\0\0\0\x07\x05\xa4five\xa4when\xd6\xff\x01\x02\x03\x04\xa4list\xdd\0\0\0\x02\xc4\x01\x09\x02";
    let packed = order(&[&b"\x86\xa1n\x01"[..], kept].concat());
    let (server, letter) = bury_bytes("msgpack", &packed);
    let url = server.url();
    let edit = |url: &str, id: &str, rest: &[&str], input: &str| {
        let all = [&["dead", "edit", "orders", "billing", id], rest].concat();
        let mut command = redstart(Some(url), &all);
        command.env("REDSTART_DEAD_LETTER_EDITING", "true");
        run_with(command, input)
    };
    for (how, input, code, rule) in [
        (
            "--patch",
            r#"{"payload":{"new":1}}"#,
            1,
            "/payload/new: the map has keys that are not text",
        ),
        (
            "--patch",
            r#"{"payload":{"n":12345678901234567890123}}"#,
            1,
            "/payload/n: it holds a number that MessagePack would round",
        ),
        (
            "--patch",
            r#"{"payload":{"blob":{"a":1}}}"#,
            1,
            "/payload/blob: the value is a MessagePack binary",
        ),
        (
            "--file",
            "{\"type\":\"t\"",
            2,
            "the standard input is not JSON",
        ),
    ] {
        let ran = edit(&url, &letter, &[how, "-"], input).failed(code);
        assert!(ran.err.contains(rule), "{ran:?}");
    }
    assert_eq!(counts(&url), (1, 0));
    edit(&url, &letter, &["--patch", "-"], r#"{"payload":{"n":2}}"#).ok();
    let entry = redelivered(&server);
    assert!(holds(
        &entry,
        &[&b"\xa7payload\x86\xa1n\x02"[..], kept].concat()
    ));

    // The same through an editor, which sees the JSON form.
    let (server, letter) = bury_bytes("msgpack", &packed);
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("editor");
    std::fs::write(&script, "sed -i 's/\"n\": 1,/\"n\": 3,/' \"$1\"\n").unwrap();
    let editor = format!("sh {}", script.display());
    let variables = [
        ("REDSTART_DEAD_LETTER_EDITING", "true"),
        ("VISUAL", ""),
        ("EDITOR", &editor),
    ];
    let args = ["dead", "edit", "orders", "billing", &letter];
    let (code, screen) = Terminal::start_with(&server.url(), 100, &args, &variables).ends();
    assert_eq!(code, 0, "{screen}");
    let entry = redelivered(&server);
    assert!(holds(
        &entry,
        &[&b"\xa7payload\x86\xa1n\x03"[..], kept].concat()
    ));

    // JSON: numbers of any length, escapes, equal keys.
    let kept = r#""big":123456789012345678901234567890.10,"text":"\u0061\/","twice":1,"twice":2"#;
    let json = format!(r#"{{"type":"order.placed","payload":{{"n":1,{kept}}}}}"#);
    let (server, letter) = bury_bytes("json", json.as_bytes());
    edit(
        &server.url(),
        &letter,
        &["--patch", "-"],
        r#"[{"op":"test","path":"/payload/big","value":123456789012345678901234567890.1},
            {"op":"add","path":"/payload/more","value":1e400}]"#,
    )
    .ok();
    let entry = redelivered(&server);
    let wanted = format!(r#""payload":{{"n":1,{kept},"more":1e400}}"#);
    assert!(
        holds(&entry, wanted.as_bytes()),
        "{}",
        String::from_utf8_lossy(&entry)
    );
}
