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
    let unconfirmed = error(&["groups", "remove", "orders", "billing", "--json"], 2);
    assert_eq!(unconfirmed["kind"], "usage");
    // Text of others stays harmless, and is still JSON.
    let away = run(Some("redis://127.0.0.1:1/"), &["topics", "--json"]).failed(1);
    let away: Value = serde_json::from_str(&away.err).unwrap();
    assert_eq!(away["error"]["kind"], "unavailable");
}
