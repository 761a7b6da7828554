//! The console inside another service, and behind a proxy.

use redstart::console::{Access, ConsoleOptions, service};
use tower::ServiceExt as _;

use crate::site::{dies, get, in_memory, options};

#[tokio::test]
async fn a_router_of_axum_mounts_the_console_under_a_path() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let options = ConsoleOptions::with_access(|_| Access::Viewer("bob".to_owned()));
    let console = service(container, options.with_base_path("/redstart").unwrap());
    let app = axum::Router::new()
        .route("/", axum::routing::get(async || "the shop"))
        .nest_service("/redstart", console);
    for (path, part) in [
        ("/", "the shop"),
        ("/redstart", "href=\"/redstart/dead\""),
        ("/redstart/", "href=\"/redstart/dead\""),
        (
            "/redstart/dead",
            "/redstart/dead/orders/billing?reason=rejected",
        ),
    ] {
        let request = http::Request::get(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let text = axum::body::to_bytes(answer.into_body(), 1 << 20)
            .await
            .unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(part), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_proxy_may_leave_the_base_path_or_take_it_off() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = service(container, options().with_base_path("/ops/bus").unwrap());
    for path in ["/dead/orders/billing", "/ops/bus/dead/orders/billing"] {
        let page = get(&console, path).await.ok();
        let links = page.text.split("href=\"").skip(1);
        for link in links.filter(|link| link.starts_with('/')) {
            assert!(link.starts_with("/ops/bus/"), "{link}");
        }
    }
}
