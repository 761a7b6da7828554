//! Hostile text in every field of a message: pages show it and gain no element by it.

use redstart::console::service;
use redstart::{Container, Delivery, Envelope, Outcome};
use serde_json::value::RawValue;

use crate::site::{console, dies, get, in_memory, keep_entries, options, post, send};
use crate::support::{PATIENCE, group, letters, topic, until};

const SCRIPT: &str =
    "</td><script>alert(1)</script><img src=x onerror=alert(1)>\u{202e}\u{0}\u{feff}'\"";

/// Names of elements, each with its number.
fn elements(html: &str) -> std::collections::BTreeMap<String, usize> {
    let mut all = std::collections::BTreeMap::new();
    for part in html.split('<').skip(1) {
        let name: String = part
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        *all.entry(name).or_default() += 1;
    }
    all
}

async fn message(container: &Container, text: &str) {
    keep_entries(container).await;
    let envelope = Envelope::new(text, &text).unwrap();
    let envelope = envelope
        .with_tenant(text)
        .with_correlation(text)
        .with_key(text)
        .with_header(text, text);
    container
        .bus()
        .publish(&topic("orders"), &envelope)
        .await
        .unwrap();
    let error = text.to_owned();
    let handler = move |_: Delivery| {
        let error = error.clone();
        async move { Outcome::dead_letter(error) }
    };
    let bus = container.bus();
    let subscription = bus.subscribe(&topic("orders"), handler).await.unwrap();
    until("the message to die", async || {
        let status = container
            .topics()
            .group(&topic("orders"), &group("billing"))
            .await;
        (status.unwrap().dead == 1).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

#[tokio::test]
async fn text_of_others_adds_no_element_to_any_page() {
    let (plain, hostile) = (in_memory().await, in_memory().await);
    message(&plain, "plain").await;
    message(&hostile, SCRIPT).await;
    let paths = async |container: &Container| {
        let letter = letters(container, &topic("orders"), &group("billing")).await[0].id;
        let entry = container
            .topics()
            .latest(&topic("orders"), 1)
            .await
            .unwrap()[0]
            .id;
        [
            "/".to_owned(),
            "/topics/orders".to_owned(),
            format!("/topics/orders/entries/{entry}"),
            "/topics/orders/groups/billing".to_owned(),
            "/dead".to_owned(),
            "/dead/orders/billing".to_owned(),
            format!("/dead/orders/billing/{letter}"),
        ]
    };
    let (expected, found) = (paths(&plain).await, paths(&hostile).await);
    for (one, other) in expected.iter().zip(&found) {
        let one = get(&console(&plain), one).await.ok();
        let page = get(&console(&hostile), other).await.ok();
        assert_eq!(
            elements(&one.text),
            elements(&page.text),
            "{other}: {}",
            page.text
        );
        assert!(
            !page.text.contains(['\u{202e}', '\u{0}', '\u{feff}']),
            "{other}"
        );
    }
}

#[tokio::test]
async fn text_of_an_address_adds_no_element_either() {
    let container = in_memory().await;
    message(&container, "plain").await;
    let console = console(&container);
    let text = "%3C%2Ftd%3E%3Cscript%3E%22%27%E2%80%AE";
    let fields = [
        "error",
        "error_pattern",
        "fingerprint",
        "type",
        "tenant",
        "correlation",
        "since",
        "until",
        "min_attempts",
        "reason",
        "redriven",
    ];
    for field in fields {
        let page = get(&console, &format!("/dead/orders/billing?{field}={text}"))
            .await
            .ok();
        assert_eq!(elements(&page.text)["script"], 2, "{field}: {}", page.text);
        assert!(!page.text.contains("<script>"), "{field}: {}", page.text);
    }
    for path in [
        format!("/topics/{text}"),
        format!("/topics/orders?from={text}"),
        format!("/{text}"),
    ] {
        let page = get(&console, &path).await;
        assert_eq!(elements(&page.text)["script"], 2, "{path}: {}", page.text);
    }
}

#[tokio::test]
async fn large_and_deep_payloads_stay_small_pages() {
    let container = in_memory().await;
    let big = format!("\"{}\"", "x".repeat(900_000));
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    let digits = "[123456789012345678901234567890,1.25,1e400]";
    let mut pages = Vec::new();
    for text in [&*big, &deep, digits] {
        let payload = RawValue::from_string(text.to_owned()).unwrap();
        let envelope = Envelope::new("big", &payload).unwrap();
        container
            .bus()
            .publish(&topic("orders"), &envelope)
            .await
            .unwrap();
        let id = container
            .topics()
            .latest(&topic("orders"), 1)
            .await
            .unwrap()[0]
            .id;
        let page = get(
            &console(&container),
            &format!("/topics/orders/entries/{id}"),
        )
        .await
        .ok();
        assert!(page.text.len() < 200_000, "{}", page.text.len());
        pages.push(page);
    }
    assert!(
        pages[0].text.contains("more bytes"),
        "the page says that it was cut"
    );
    let deep = &pages[1].text;
    assert!(deep.matches("<details").count() >= 30, "{deep}");
    for part in ["123456789012345678901234567890", "1.25", "1e400"] {
        assert!(pages[2].text.contains(part), "{part}");
    }
}

/// Every address and form that breaks a rule gets a page that names the input and the rule.
#[tokio::test]
async fn a_wrong_address_or_form_is_told_what_is_wrong() {
    let container = crate::site::in_memory().await;
    dies(&container, 2).await;
    let console = service(container, options().with_values(true));
    for (path, status, parts) in [
        ("/topics/a%0Ab", 404, &["a\\nb", "letters"][..]),
        ("/topics/a%00b", 404, &["a\\0b"]),
        ("/topics/100%25", 404, &["100%", "letters"]),
        ("/topics/%E2%80%AEx", 404, &["u{202e}"]),
        ("/topics/%ff", 400, &["the address is not valid", "UTF-8"]),
        ("/dead/orders/%22", 404, &["group"]),
        ("/dead/orders/billing/xx", 404, &["xx", "milliseconds"]),
        (
            "/dead/orders/billing?before=xx",
            404,
            &["xx", "milliseconds"],
        ),
        ("/topics/orders?from=soon", 400, &["soon", "RFC 3339"]),
        (
            "/topics/orders?from=99999999999999999999-1",
            400,
            &["99999999999999999999-1"],
        ),
        (
            "/topics/orders?before=1-1&before=2-2",
            400,
            &["duplicate field", "before"],
        ),
        (
            "/retries/orders/billing?due=99999999999999999999",
            400,
            &["due", "too large"],
        ),
        ("/kv?key=a&key=b", 400, &["duplicate field", "key"]),
        ("/kv?from=x", 400, &["cursor"]),
    ] {
        let page = get(&console, path).await;
        assert_eq!(page.status, status, "{path}: {}", page.text);
        assert!(
            page.header("content-type").starts_with("text/html"),
            "{path}"
        );
        page.shows(parts).shows(&["<h1>", "role=\"alert\""]);
    }
    let publish = "/topics/orders/publish";
    let twice = [("type", "a"), ("type", "b"), ("payload", "1")];
    let page = post(&console, publish, &twice).await;
    assert_eq!(page.status, 400, "{}", page.text);
    page.shows(&["the field", "type", "twice"]);
    for (kind, length, status, part) in [
        (
            "application/json",
            2,
            415,
            "application/x-www-form-urlencoded",
        ),
        (
            "application/x-www-form-urlencoded",
            3 << 20,
            413,
            "longer than 2 MiB",
        ),
    ] {
        let request = http::Request::post(publish)
            .header("host", "console.test")
            .header("sec-fetch-site", "same-origin")
            .header("content-type", kind);
        let page = send(&console, request.body("a".repeat(length)).unwrap()).await;
        assert_eq!(page.status, status, "{}", page.text);
        page.shows(&[part]);
    }
    let entries = get(&console, "/topics/orders").await.ok();
    entries.shows(&["2 entries"]);
}
