//! The API for programs, and the metrics.

use serde_json::{Value, json};

use crate::site::{Answer, console, dies, get, in_memory, retries, send};
use crate::support::until;

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{error}: {}", answer.text))
}

async fn post(
    console: &redstart::console::ConsoleService,
    path: &str,
    value: &Value,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = http::Request::post(path)
        .header("host", "console.test")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(console, request.body(value.to_string()).unwrap()).await
}

#[tokio::test]
async fn programs_read_what_the_tool_prints() {
    let container = in_memory().await;
    dies(&container, 6).await;
    retries(&container).await;
    let console = console(&container);
    let read = async |path: &str| {
        let answer = get(&console, path).await.ok();
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        body(&answer)
    };
    assert_eq!(read("/api/v1/topics").await[1]["topic"], "orders");
    assert_eq!(read("/api/v1/gauges").await[1]["groups"][0]["dead"], 6);
    assert_eq!(read("/api/v1/groups").await[1]["dead"], 6);
    assert_eq!(
        read("/api/v1/groups/orders/billing").await["consumersOf"],
        json!([])
    );
    assert_eq!(read("/api/v1/dead").await[0]["count"], 4);
    let page = read("/api/v1/dead/orders/billing?error=declined&max=1").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let (id, next) = (
        page["items"][0]["id"].clone(),
        page["next"].as_str().unwrap().to_owned(),
    );
    let rest = read(&format!(
        "/api/v1/dead/orders/billing?error=declined&before={next}"
    ))
    .await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    let letter = read(&format!(
        "/api/v1/dead/orders/billing/{}",
        id.as_str().unwrap()
    ))
    .await;
    assert_eq!(letter["reason"], "rejected");
    assert_eq!(
        read("/api/v1/retries/mails/billing").await[0]["error"],
        "the relay is away"
    );
    assert_eq!(read("/api/v1/operations").await, json!([]));
    assert!(read("/api/v1/doctor").await["findings"].is_array());
    let missing = get(&console, "/api/v1/dead/orders/biling").await;
    assert_eq!(missing.status, 404);
    assert_eq!(body(&missing)["error"]["kind"], "not-found");
    let metrics = get(&console, "/metrics").await.ok();
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    metrics.shows(&[
        "redstart_up 1",
        "redstart_dead_letters_stored{topic=\"orders\",group=\"billing\"} 6",
    ]);
}

#[tokio::test]
async fn programs_plan_and_begin_sweeps() {
    let container = in_memory().await;
    dies(&container, 6).await;
    let console = console(&container);
    let path = "/api/v1/dead/orders/billing/sweep";
    let mut order = json!({"action": "redrive", "error": "declined", "dryRun": true});
    let plan = body(&post(&console, path, &order, &[]).await.ok());
    assert_eq!(
        (&plan["matching"], &plan["action"]),
        (&json!(2), &json!("redrive"))
    );
    order["dryRun"] = json!(false);
    order["watermark"] = plan["watermark"].clone();
    let refused = post(&console, path, &order, &[]).await;
    assert_eq!(refused.status, 422);
    assert!(
        body(&refused)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("confirm"),
        "{refused:?}"
    );
    order["confirm"] = json!(2);
    let begun = body(&post(&console, path, &order, &[]).await.ok());
    assert!(begun["operation"].is_string(), "{begun}");
    until("the operation to end", async || {
        let all = body(&get(&console, "/api/v1/operations").await.ok());
        (all[0]["result"].is_string() && all[0]["operator"] == "ann").then_some(())
    })
    .await;
    let viewer = post(&console, path, &order, &[("x-role", "viewer")]).await;
    assert_eq!(viewer.status, 403);
    for foreign in [
        ("origin", "http://evil.test"),
        ("sec-fetch-site", "cross-site"),
        ("origin", "null"),
    ] {
        let refused = post(&console, path, &order, &[foreign]).await;
        assert_eq!(refused.status, 403, "{foreign:?}");
    }
    // A form of another site can send text, but not JSON.
    let form = http::Request::post(path)
        .header("host", "h")
        .header("content-type", "text/plain");
    assert_eq!(
        send(&console, form.body(order.to_string()).unwrap())
            .await
            .status,
        403
    );
}
