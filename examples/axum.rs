//! Shows Redstart in an axum service: publishing from a request, endpoints for the readiness and the
//! liveness probe, and one shutdown for the web server and the container.
//!
//! The program calls its own endpoints and then sends itself SIGTERM, as an orchestrator would.
//!
//! Output:
//!
//! ```text
//! GET /ready
//! HTTP/1.1 200 OK
//! {"ok":true,"bus":{"ok":true,"reasons":[]},"kv":{"ok":true,"reasons":[]}}
//! GET /live
//! HTTP/1.1 200 OK
//! POST /orders
//! HTTP/1.1 202 Accepted
//! order 7 handled
//! the web server has stopped
//! clean shutdown
//! ```

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redstart::container::{Coordinator, Health};
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::{Container, Message, Subscription, Topic};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const ORDERS: Topic = Topic::from_static("orders");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

/// The readiness probe: an instance that cannot reach its server gets no requests.
async fn ready(State(container): State<Container>) -> (StatusCode, Json<Health>) {
    let health = container.health().await;
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// The liveness probe says nothing about the server: a restart of this process would not mend it.
async fn live() -> StatusCode {
    StatusCode::OK
}

async fn place(State(container): State<Container>, Json(order): Json<Placed>) -> StatusCode {
    match container.bus().send(&ORDERS, &order).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The web server. As a coordinator it stops with the container: after the subscriptions, and before
/// publishing ends, because a request may still publish.
struct Web {
    listener: Mutex<Option<TcpListener>>,
    stop: Arc<Notify>,
    server: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Web {
    fn new(listener: TcpListener) -> Self {
        Self {
            listener: Mutex::new(Some(listener)),
            stop: Arc::default(),
            server: Mutex::default(),
        }
    }
}

impl Coordinator for Web {
    fn name(&self) -> &str {
        "web"
    }

    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let router = Router::new()
                .route("/ready", get(ready))
                .route("/live", get(live))
                .route("/orders", post(place))
                .with_state(container.clone());
            let listener = self.listener.lock().map_err(|e| e.to_string())?.take();
            let listener = listener.ok_or("started twice")?;
            let stop = Arc::clone(&self.stop);
            let serving = axum::serve(listener, router)
                .with_graceful_shutdown(async move { stop.notified().await });
            let server = tokio::spawn(async move { serving.await });
            *self.server.lock().map_err(|e| e.to_string())? = Some(server);
            Ok(Vec::new())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stop.notify_one();
            let server = self.server.lock().ok().and_then(|mut server| server.take());
            if let Some(server) = server
                && let Ok(Ok(())) = server.await
            {
                println!("the web server has stopped");
            }
        })
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let container = Container::builder()
        .with_memory(MemoryStore::new())
        .with_coordinator(Web::new(listener))
        .connect()
        .await?;
    let (handled, lines) = mpsc::unbounded_channel();
    let handler = move |order: Placed| {
        let _ = handled.send(format!("order {} handled", order.id));
        async {}
    };
    container.bus().subscribe(&ORDERS, handler).await?;

    // A real service only runs until a signal.
    let running = container.run_until_signal(Duration::from_secs(10));
    let (report, shown) = tokio::join!(running, show(address, lines));
    shown?;
    let report = report?;
    println!("{report}");
    Ok(report.into())
}

/// Calls the endpoints and ends the process.
async fn show(address: SocketAddr, mut lines: mpsc::UnboundedReceiver<String>) -> io::Result<()> {
    for (what, body) in [
        ("GET /ready", ""),
        ("GET /live", ""),
        ("POST /orders", r#"{"id":7}"#),
    ] {
        println!("{what}\n{}", request(address, what, body).await?);
    }
    if let Some(line) = lines.recv().await {
        println!("{line}");
    }
    let process = std::process::id().to_string();
    let mut kill = std::process::Command::new("kill");
    kill.args(["-s", "TERM", &process]).status().map(drop)
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
