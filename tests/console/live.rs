//! Live regions: events while somebody looks.

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use redstart::console::{ConsoleService, service};
use redstart::{Container, Envelope};
use tower::ServiceExt as _;

use crate::site::{console, dies, in_memory, on_redis, options};
use crate::support::{PATIENCE, Server, topic};

/// The events of a region.
struct Events {
    status: u16,
    stream: BodyDataStream,
    buffer: String,
}

impl Events {
    async fn of(console: &ConsoleService, path: &str) -> Self {
        let request = http::Request::get(format!("/events?of={path}"))
            .body(Body::empty())
            .unwrap();
        let answer = console.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        if status == 200 {
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            assert_eq!(answer.headers()["cache-control"], "no-store");
        }
        Self {
            status,
            stream: Body::new(answer.into_body()).into_data_stream(),
            buffer: String::new(),
        }
    }

    /// The next event of a kind that has a part.
    async fn next(&mut self, kind: &str, part: &str) -> String {
        let wait = async {
            loop {
                while let Some((event, rest)) = self.buffer.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.buffer = rest;
                    if event.starts_with(&format!("event: {kind}\n")) && event.contains(part) {
                        return event;
                    }
                }
                let bytes = self
                    .stream
                    .next()
                    .await
                    .expect("the stream goes on")
                    .unwrap();
                self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("no event {kind} with {part:?}"))
    }
}

async fn publish(container: &Container, on: &str) {
    let envelope = Envelope::new("tick", &1).unwrap();
    container
        .bus()
        .publish(&topic(on), &envelope)
        .await
        .unwrap();
}

#[tokio::test]
async fn regions_follow_their_figures() {
    let container = in_memory().await;
    dies(&container, 2).await;
    let console = console(&container);
    let mut overview = Events::of(&console, "/").await;
    overview.next("region", "/topics/orders").await;
    let mut causes = Events::of(&console, "/dead").await;
    causes.next("region", "no stock").await;
    let mut group = Events::of(&console, "/topics/orders/groups/billing").await;
    group.next("region", "0 undelivered").await;
    let mut operations = Events::of(&console, "/operations").await;
    operations.next("region", "No operations yet").await;
    publish(&container, "news").await;
    overview.next("region", "/topics/news").await;
    publish(&container, "orders").await;
    group.next("region", "1 undelivered").await;
    dies(&container, 2).await;
    // The two, and the message before them.
    causes.next("region", ">5<").await;
    Events::of(&console, "/doctor")
        .await
        .next("stale", "no live region")
        .await;
}

#[tokio::test]
async fn a_server_that_is_away_makes_figures_old_and_not_empty() {
    let mut server = Server::start();
    let container = on_redis(&server).await;
    dies(&container, 2).await;
    let console = console(&container);
    let mut overview = Events::of(&console, "/").await;
    overview.next("region", "/dead/orders/billing").await;
    let mut causes = Events::of(&console, "/dead").await;
    causes.next("region", "no stock").await;
    server.kill();
    // The overview keeps its figures and says from when they are.
    let old = overview.next("region", "no connection for").await;
    assert!(
        old.contains("Figures of") && old.contains("/dead/orders/billing"),
        "{old}"
    );
    // The script keeps the region of every other page and shows the banner.
    causes.next("stale", "no connection for").await;
    server.start_again();
    let new = overview.next("region", "/dead/orders/billing").await;
    // An event of the outage may still be on its way.
    if new.contains("no connection for") {
        loop {
            let next = overview.next("region", "/dead/orders/billing").await;
            if !next.contains("no connection for") {
                break;
            }
        }
    }
    causes.next("region", "no stock").await;
}

#[tokio::test]
async fn further_pages_beyond_the_limit_are_refused_until_one_closes() {
    let container = in_memory().await;
    let console = service(container, options().with_max_clients(1));
    let first = Events::of(&console, "/").await;
    assert_eq!(first.status, 200);
    assert_eq!(Events::of(&console, "/").await.status, 503);
    drop(first);
    assert_eq!(Events::of(&console, "/").await.status, 200);
}
