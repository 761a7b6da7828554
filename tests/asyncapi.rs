//! Validates AsyncAPI documents with the reference parser, which `tests/install` installs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use redstart::asyncapi::AsyncApi;
use redstart::envelope::Codec;
use redstart::{Batch, Message, Outcome, Router, Topic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const ORDERS: Topic = Topic::from_static("eu.orders_v2");
const CLICKS: Topic = Topic::from_static("clicks");

#[derive(Deserialize, JsonSchema)]
struct Placed {
    id: u32,
    items: Vec<Item>,
    note: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, f64>,
    payment: Payment,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Item {
    name: String,
    #[schemars(range(min = 1))]
    count: i64,
    parts: Vec<Item>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "camelCase")]
enum Payment {
    Card { number: String },
    Invoice,
}

impl Message for Placed {
    const TYPE: &'static str = "order placed/v2 ~#ü";
}

/// Without a schema.
#[derive(Deserialize)]
struct Cancelled {
    id: u32,
}

impl Message for Cancelled {
    const TYPE: &'static str = "order.cancelled";
}

/// A message that is no object.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Click(String);

impl Message for Click {
    const TYPE: &'static str = "click";
}

async fn placed(order: Placed) -> Outcome {
    drop((order.items, order.note, order.attributes));
    match order.payment {
        Payment::Card { number } => Outcome::retry(format!("order {}: {number}", order.id)),
        Payment::Invoice => Outcome::Ack,
    }
}

async fn cancelled(order: Cancelled) -> Outcome {
    Outcome::dead_letter(order.id.to_string())
}

async fn clicks(_: Batch<Click>) {}

fn document() -> Value {
    let orders = Router::new().on(placed).on(cancelled).describe::<Placed>();
    AsyncApi::new("orders", "2.0.0")
        .with_description("Takes *orders*.")
        .with_codec(Codec::Json)
        .receives(&ORDERS, &orders.otherwise(Outcome::Ack))
        .receives(&CLICKS, &Router::new().on_batch(clicks).describe::<Click>())
        .sends::<Click>(&CLICKS)
        .document()
        .unwrap()
}

/// What the parser says: whether the document is valid, and its errors.
fn parse(document: &Value) -> (bool, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(
        folder.join("node_modules").is_dir(),
        "the parser is missing: run tests/install"
    );
    let mut node = Command::new("node")
        .arg("asyncapi.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/install installs node");
    let text = document.to_string();
    node.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = node.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), printed)
}

#[test]
fn the_reference_parser_accepts_the_document_without_a_warning() {
    let document = document();
    let (valid, printed) = parse(&document);
    assert!(valid, "{printed}\n{document:#}");
    assert_eq!(printed.trim(), "valid: AsyncAPI 3.1.0");
    let received = &document["operations"]["receive-eu.orders_v2"]["messages"];
    assert_eq!(received.as_array().unwrap().len(), 2, "{document:#}");
    assert!(document["components"]["schemas"]["Payment"].is_object());
}

#[test]
fn the_reference_parser_refuses_broken_documents() {
    let mut wrong_reference = document();
    let first = "/operations/receive-clicks/messages/0/$ref";
    *wrong_reference.pointer_mut(first).unwrap() = json!("#/channels/clicks/messages/none");
    let mut wrong_schema = document();
    wrong_schema["components"]["schemas"]["Item"]["type"] = json!("objekt");
    for broken in [wrong_reference, wrong_schema] {
        let (valid, printed) = parse(&broken);
        assert!(!valid, "{printed}");
    }
}
