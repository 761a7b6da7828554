//! Who may see and change what, and the headers of every answer.

use redstart::console::service;

use crate::site::{console, dies, get, in_memory, options, send};

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> http::Request<String> {
    let mut request = http::Request::builder().method(method).uri(path);
    request = request.header("host", "console.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(String::new()).unwrap()
}

#[tokio::test]
async fn nobody_sees_anything_but_probes() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = service(container, options().with_title("shop-canary"));
    let nobody = [("x-role", "nobody")];
    for path in [
        "/",
        "/topics/orders",
        "/dead",
        "/dead/orders/billing",
        "/operations",
        "/doctor",
        "/nothing",
    ] {
        let answer = send(&console, request("GET", path, &nobody)).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.text.contains("canary"), "{path}: {}", answer.text);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            send(&console, request("GET", path, &nobody)).await.status,
            200,
            "{path}"
        );
        assert_eq!(
            send(&console, request("POST", path, &nobody)).await.status,
            403,
            "{path}"
        );
    }
    let viewer = send(&console, request("GET", "/", &[("x-role", "viewer")])).await;
    viewer.ok().shows(&["bob · viewer", "shop-canary"]);
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_it() {
    let console = console(&in_memory().await);
    for path in ["/", "/nothing", "/healthz", "/favicon.ico"] {
        let answer = get(&console, path).await;
        let policy = answer.header("content-security-policy").to_owned();
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            "{path}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{path} {name}");
        }
    }
}

#[tokio::test]
async fn the_assets_of_a_page_exist_and_may_be_kept() {
    let console = console(&in_memory().await);
    let page = get(&console, "/").await.ok();
    let parts = page
        .text
        .split('"')
        .filter(|part| part.starts_with("/assets/"));
    let assets: Vec<&str> = parts.collect();
    assert_eq!(assets.len(), 4, "{}", page.text);
    for path in assets {
        let asset = get(&console, path).await.ok();
        assert_eq!(
            asset.header("cache-control"),
            "public, max-age=31536000, immutable"
        );
    }
    let old = get(&console, "/assets/0000/style.css").await.ok();
    assert_eq!(old.header("cache-control"), "no-store");
    assert_eq!(get(&console, "/assets/0000/none.css").await.status, 404);
}

#[tokio::test]
async fn payloads_can_be_hidden() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = service(container.clone(), options().with_payloads(false));
    let newest = container
        .topics()
        .latest(&crate::support::topic("orders"), 1)
        .await
        .unwrap()[0]
        .id;
    let entry = format!("/topics/orders/entries/{newest}");
    let page = get(&console, &entry).await.ok().shows(&["hides payloads"]);
    assert!(!page.text.contains("region"), "{}", page.text);
    assert_eq!(get(&console, &format!("{entry}/payload")).await.status, 404);
    get(&console, "/topics/orders")
        .await
        .ok()
        .shows(&["hidden"]);
}

#[tokio::test]
async fn a_method_that_a_page_does_not_have_is_refused_with_those_that_it_has() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = console(&container);
    let own = [("sec-fetch-site", "same-origin")];
    let sweep = "/dead/orders/billing/sweep";
    for (method, path, status, allow) in [
        ("DELETE", "/", 405, "GET,HEAD"),
        ("OPTIONS", "/topics/orders", 405, "GET,HEAD"),
        ("PUT", sweep, 405, "GET,HEAD,POST"),
        ("PATCH", "/healthz", 405, "GET,HEAD"),
        ("POST", "/dead", 405, "GET,HEAD"),
        ("DELETE", "/topics/orders/publish", 405, "POST"),
        ("DELETE", "/api/v1/dead", 405, "GET,HEAD"),
        ("DELETE", "/nothing", 404, ""),
        ("POST", "/nothing", 404, ""),
        ("POST", sweep, 403, ""),
    ] {
        let answer = send(&console, request(method, path, &[])).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        let mut methods: Vec<&str> = answer.header("allow").split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allow, "{method} {path}");
        if path == "/api/v1/dead" {
            let told: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
            assert!(told["error"]["message"].is_string(), "{told}");
        } else {
            answer.shows(&["</html>"]);
        }
        let nobody = send(&console, request(method, path, &[("x-role", "nobody")])).await;
        assert_eq!((nobody.status, nobody.header("allow")), (403, ""));
    }
    // A console that only reads has no other method at all.
    let read_only = service(container, options().with_read_only(true));
    let answer = send(&read_only, request("POST", sweep, &own)).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"));
}
