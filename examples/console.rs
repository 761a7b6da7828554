//! Shows the operators' page inside an axum service: mounted under a path, behind the service's own
//! log-in.
//!
//! The program asks its own endpoints as a stranger, as a viewer and as an operator.
//!
//! Output:
//!
//! ```text
//! GET /
//! 200 OK: the shop
//! GET /redstart/dead as nobody
//! 403 Forbidden
//! GET /redstart/dead as bob
//! 200 OK: 1 cause, read only for bob
//! GET /redstart/dead as ann
//! 200 OK: 1 cause, ann may redrive
//! ```

use std::error::Error;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::get;
use redstart::console::{Access, ConsoleOptions, service};
use redstart::{Container, Message, Outcome, Topic};
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let container = Container::in_memory().await?;
    let bus = container.bus();
    bus.send(&ORDERS, &Placed { cents: 0 }).await?;
    let bill = |_: Placed| async { Outcome::dead_letter("an order without a price") };
    let billing = bus.subscribe(&ORDERS, bill).await?;
    let dead = container.dead_letters();
    while dead.newest(&ORDERS, billing.group()).await?.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    // A real service takes the name from its session. It must not believe a header of the visitor.
    let options = ConsoleOptions::with_access(|parts| {
        match parts.headers.get("x-session").map(|name| name.as_bytes()) {
            Some(b"ann") => Access::Operator("ann".to_owned()),
            Some(b"bob") => Access::Viewer("bob".to_owned()),
            _ => Access::Forbidden,
        }
    });
    let console = service(container.clone(), options.with_base_path("/redstart")?);
    let app = Router::new()
        .route("/", get(async || "the shop"))
        .nest_service("/redstart", console);

    println!("GET /");
    let (status, text) = ask(&app, "/", "").await?;
    println!("{status}: {text}");
    for name in ["nobody", "bob", "ann"] {
        println!("GET /redstart/dead as {name}");
        let (status, page) = ask(&app, "/redstart/dead", name).await?;
        let (_, list) = ask(&app, "/redstart/dead/orders/redstart", name).await?;
        match (page.contains("1 cause"), list.contains("Redrive selected")) {
            (true, true) => println!("{status}: 1 cause, {name} may redrive"),
            (true, false) => println!("{status}: 1 cause, read only for {name}"),
            (false, _) => println!("{status}"),
        }
    }
    Ok(())
}

/// The status and the text of an answer.
async fn ask(app: &Router, path: &str, name: &str) -> Result<(String, String), Box<dyn Error>> {
    let request = Request::get(path)
        .header("x-session", name)
        .body(Body::empty())?;
    let answer = app.clone().oneshot(request).await?;
    let status = answer.status().to_string();
    let text = to_bytes(answer.into_body(), 1 << 20).await?;
    Ok((status, String::from_utf8(text.to_vec())?))
}
