//! `dead edit`: a dead letter changed on its way back.

use std::collections::BTreeSet;

use crate::dead::{bury, counts, delivered, id, list};
use crate::run::{redstart, run_with};
use crate::support::Server;
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
