//! Shows Redstart in an axum service: publishing from a request, a health endpoint, and one shutdown for
//! the web server and the container.
//!
//! The program calls its own endpoints and then stops itself, as a signal would.
//!
//! Output:
//!
//! ```text
//! GET /health
//! HTTP/1.1 200 OK
//! {"ok":true,"bus":{"ok":true,"reasons":[]},"kv":{"ok":true,"reasons":[]}}
//! POST /orders
//! HTTP/1.1 202 Accepted
//! order 7 handled
//! clean: true
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redstart::container::Health;
use redstart::{Container, Message, Topic};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// An orchestrator calls this as readiness probe.
async fn health(State(container): State<Container>) -> (StatusCode, Json<Health>) {
    let health = container.health().await;
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

async fn place(State(container): State<Container>, Json(order): Json<Placed>) -> StatusCode {
    match container.bus().send(&ORDERS, &order).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let container = Container::in_memory().await?;
    let (handled, mut lines) = mpsc::unbounded_channel();
    let handler = move |order: Placed| {
        let _ = handled.send(format!("order {} handled", order.id));
        async {}
    };
    container.bus().subscribe(&ORDERS, handler).await?;

    let router = Router::new()
        .route("/health", get(health))
        .route("/orders", post(place))
        .with_state(container.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // A real service awaits SIGTERM in place of this receiver.
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(async move { serving.await });

    println!(
        "GET /health\n{}",
        request(address, "GET /health", "").await?
    );
    let answer = request(address, "POST /orders", r#"{"id":7}"#).await?;
    println!("POST /orders\n{answer}");
    if let Some(line) = lines.recv().await {
        println!("{line}");
    }

    // First the requests end, then the bus: a request may still publish.
    let _ = stop.send(());
    server.await??;
    let report = container.shutdown(Duration::from_secs(10)).await;
    println!("clean: {}", report.is_clean());
    Ok(())
}

/// Sends one request and returns the answer's status line and body.
async fn request(address: SocketAddr, what: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let head = format!(
        "{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(format!("{status}\n{body}").trim_end().to_owned())
}
