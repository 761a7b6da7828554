//! One name for one thing in every JSON view of the tool.

use std::collections::BTreeMap;

use redstart::Envelope;
use redstart::extract::Payload;
use serde_json::Value;

use crate::dead::{bury, dead, id, lines, list};
use crate::run::run;
use crate::support::{Server, container, finish, group, topic};

/// Every name in a value, with the values under it. `payload` and `fields` are data of messages.
fn names(value: &Value, all: &mut BTreeMap<String, Vec<Value>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                all.entry(name.clone()).or_default().push(value.clone());
                if name != "payload" && name != "fields" && name != "headers" {
                    names(value, all);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, all)),
        _ => {}
    }
}

fn names_of(value: &Value) -> BTreeMap<String, Vec<Value>> {
    let mut all = BTreeMap::new();
    names(value, &mut all);
    all
}

/// The name under which a view has a value.
fn name_of<'a>(view: &'a Value, wanted: &Value) -> Vec<&'a str> {
    let fields = view.as_object().unwrap().iter();
    let found = fields.filter(|(_, value)| *value == wanted);
    found.map(|(name, _)| name.as_str()).collect()
}

fn is_camel_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Redrives the first dead letter, lets it die again, and returns its views.
fn views(url: &str, server: &Server) -> [(&'static str, Value); 4] {
    bury(server, 1);
    let first = id(&list(url, &[])[0]);
    dead(url, "redrive", &[&first, "--operator", "ann"]).ok();
    until_dead_again(server);
    let listed = list(url, &[]).remove(0);
    let shown = dead(url, "show", &[&id(&listed), "--json"]).ok().json();
    let exported = lines(&dead(url, "export", &[]).ok()).remove(0);
    let journal = lines(&dead(url, "journal", &["--json"]).ok()).remove(0);
    [
        ("list", listed),
        ("show", shown),
        ("export", exported),
        ("journal", journal),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn until_dead_again(server: &Server) {
    let container = container(server).await;
    let handler = |Payload(_): Payload<Value>, _: redstart::Delivery| async {
        redstart::Outcome::dead_letter("no price for 7")
    };
    let orders = topic("orders");
    let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    crate::support::until("the message to die again", async || {
        let status = crate::support::status(&container, &orders, &group("billing")).await;
        (status.dead == 1).then_some(())
    })
    .await;
    finish(container).await;
}

#[test]
fn list_show_export_and_journal_call_one_thing_by_one_name() {
    let server = Server::start();
    let url = server.url();
    let views = views(&url, &server);
    let [(_, listed), (_, shown), (_, exported), (_, journal)] = &views;
    assert_eq!(shown, exported);
    for (name, value) in listed.as_object().unwrap() {
        // A list has null where the export leaves a field out.
        let other = shown.get(name).unwrap_or(&Value::Null);
        assert_eq!(value, other, "{name} of list and show");
    }
    // The values are unique, so a value under two names is one thing with two names.
    let unique = [
        "id",
        "messageId",
        "corrId",
        "tenantId",
        "type",
        "fingerprint",
    ];
    for name in unique.into_iter().chain(["redrivenBy", "reason"]) {
        let value = &shown[name];
        assert!(value.is_string(), "{name}: {shown}");
        for (view, json) in &views[..3] {
            assert_eq!(name_of(json, value), [name], "{view}");
        }
    }
    assert_eq!(journal["operation"], listed["redrivenBy"]);
    for name in [
        "action",
        "operator",
        "selection",
        "begun",
        "taken",
        "result",
    ] {
        assert!(journal.get(name).is_some(), "{name}: {journal}");
    }
    // No name of the journal means another thing in the other views.
    let shared: Vec<String> = names_of(journal)
        .into_keys()
        .filter(|name| names_of(shown).contains_key(name))
        .collect();
    assert_eq!(shared, Vec::<String>::new());
}

#[test]
fn every_view_is_camel_case_and_uses_the_names_of_the_wire() {
    let server = Server::start();
    let url = server.url();
    let dead_letter_views = views(&url, &server).map(|(_, json)| json);
    let command = |args: &[&str]| {
        let ran = run(Some(&url), &[args, &["--json"]].concat());
        let lines = ran.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    publish_one(&server);
    let mut all: Vec<Value> = dead_letter_views.into();
    for args in [
        &["topics"][..],
        &["groups"],
        &["tail", "orders", "--from-beginning"],
        &["dead", "summary"],
        &["dead", "summary", "--by", "tenant"],
        &["dead", "redrive", "orders", "billing", "--all", "--dry-run"],
        &["dead", "redrive", "orders", "billing", "--all"],
        &["dead", "purge", "orders", "billing", "--all", "--yes"],
        &["retries", "list", "orders", "billing"],
        &["retries", "run-now", "orders", "billing", "--all"],
        &["groups", "remove", "orders", "billing", "--dry-run"],
        &["groups", "remove", "orders", "billing", "--force", "--yes"],
        &["health"],
        &["doctor"],
        &["migrate", "status"],
    ] {
        all.extend(command(args));
    }
    let mut seen = BTreeMap::new();
    all.iter().for_each(|view| names(view, &mut seen));
    for name in seen.keys() {
        assert!(is_camel_case(name), "{name}");
        // The other spellings of what the wire calls corrId, tenantId and type.
        for other in [
            "correlation",
            "correlationId",
            "tenant",
            "kind",
            "messageType",
            "message",
        ] {
            assert_ne!(name, other);
        }
    }
    for name in [
        "inFlight",
        "backlogLimit",
        "diedAgain",
        "liveConsumers",
        "appliedAt",
        "firstDied",
    ] {
        assert!(seen.contains_key(name), "{name} in {:?}", seen.keys());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn publish_one(server: &Server) {
    let container = container(server).await;
    let envelope = Envelope::new("order.placed", &7).unwrap();
    container
        .bus()
        .publish(&topic("orders"), &envelope)
        .await
        .unwrap();
    finish(container).await;
}
