//! Errors of the tool: suggestions for misspelt names, and the form for programs.

use serde_json::{Value, json};

use crate::dead::bury;
use crate::run::run;
use crate::support::Server;

#[test]
fn a_misspelt_topic_or_group_gets_a_suggestion() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 0);
    for (args, rule) in [
        (
            &["groups", "order"][..],
            "topic \"order\": does not exist; did you mean orders?\n",
        ),
        (
            &["tail", "odrers"],
            "topic \"odrers\": does not exist; did you mean orders?\n",
        ),
        (
            &["dead", "list", "orders", "biling"],
            "group \"orders/biling\": does not exist; did you mean billing?\n",
        ),
        (
            &["dead", "list", "orders", "warehouse"],
            "group \"orders/warehouse\": does not exist; the topic has billing\n",
        ),
        (
            &["groups", "warehouse"],
            "topic \"warehouse\": does not exist\n",
        ),
    ] {
        let ran = run(Some(&url), args).failed(1);
        assert_eq!(ran.err, format!("error: {rule}"), "{args:?}");
    }
}

#[test]
fn programs_get_errors_as_json() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 0);
    let error = |args: &[&str], code: i32| -> Value {
        let ran = run(Some(&url), args).failed(code);
        assert_eq!(ran.out, "", "{args:?}");
        // A preview stands before the error of a command that was not confirmed.
        let last = ran.err.lines().last().unwrap_or_default();
        let told: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        told["error"].clone()
    };
    let unknown = error(&["dead", "list", "orders", "biling", "--json"], 1);
    assert_eq!(
        unknown,
        json!({
            "kind": "not-found", "operation": "group", "subject": "orders/biling",
            "message": "does not exist; did you mean billing?",
        })
    );
    let absent = error(&["dead", "show", "orders", "billing", "1-1", "--json"], 1);
    let not_found = |operation: &str, subject: &str| {
        json!({
            "kind": "not-found", "operation": operation, "subject": subject,
            "message": "does not exist",
        })
    };
    assert_eq!(absent, not_found("dead letter", "1-1 of orders/billing"));
    let absent = error(&["kv", "get", "nothing", "--json"], 1);
    assert_eq!(absent, not_found("key", "nothing"));
    let nobody = "01a21b32-9fc6-71aa-a72d-000000000000";
    for absent in [
        &["topics", "settings", "odrers"][..],
        &["topics", "settings", "odrers", "--retention", "5"],
        &["topics", "remove", "odrers", "--yes"],
        &["groups", "odrers"],
        &["groups", "show", "orders", "biling"],
        &[
            "groups", "reset", "orders", "biling", "--to", "end", "--yes",
        ],
        &["groups", "remove", "orders", "biling", "--yes"],
        &["tail", "odrers"],
        &["retries", "list", "orders", "biling"],
        &["retries", "run-now", "orders", "biling", "--all"],
        &["dead", "list", "orders", "biling"],
        &["dead", "summary", "orders", "biling"],
        &["dead", "journal", "orders", "biling"],
        &["dead", "export", "orders", "biling"],
        &["dead", "redrive", "orders", "biling", "--all"],
        &["dead", "redrive", "orders", "billing", "--resume", nobody],
        &[
            "dead",
            "note",
            "orders",
            "billing",
            "--fingerprint",
            "none",
            "text",
        ],
        &["schedules", "reschedule", "orders", "none", "--after", "1s"],
    ] {
        let all = [absent, &["--json"]].concat();
        let ran = run(Some(&url), &all);
        let last = ran.err.lines().last().unwrap_or_default();
        let told: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        let error = &told["error"];
        assert_eq!(
            (&error["kind"], ran.code),
            (&json!("not-found"), Some(1)),
            "{absent:?}: {told}"
        );
        assert!(error["subject"].is_string(), "{absent:?}: {told}");
    }
    let note = ["dead", "note", "orders", "billing", "--fingerprint"];
    let unknown = error(&[&note[..], &["none", "text", "--json"]].concat(), 1);
    assert_eq!(unknown["subject"], "none of orders/billing");
    for (wrong, message) in [
        (
            &["topics", "settings", "--json"][..],
            "the following required arguments were not provided: <TOPIC>",
        ),
        (
            &["--json", "tail", "orders", "--last", "x"],
            "invalid value 'x' for '--last <N>': must be a whole number from 0",
        ),
    ] {
        let told = error(wrong, 2);
        assert_eq!(told["kind"], "usage", "{wrong:?}");
        assert_eq!(told["message"], message, "{wrong:?}");
    }
    let unconfirmed = error(&["groups", "remove", "orders", "billing", "--json"], 2);
    assert_eq!(unconfirmed["kind"], "usage");
    // Text of others stays harmless, and is still JSON.
    let away = run(Some("redis://127.0.0.1:1/"), &["topics", "--json"]).failed(1);
    let away: Value = serde_json::from_str(&away.err).unwrap();
    assert_eq!(away["error"]["kind"], "unavailable");
}
