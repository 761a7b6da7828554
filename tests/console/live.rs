//! Live regions: events while somebody looks.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use redstart::console::{ConsoleService, service};
use redstart::dead_letters::DeadLetterFilter;
use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{DeadLettersAnswer, DeadLettersOp};
use redstart::{Container, Envelope, Error};
use tower::ServiceExt as _;

use crate::site::{console, dies, get, in_memory, on_redis, options};
use crate::support::{PATIENCE, Server, topic};

/// The events of a region.
struct Events {
    status: u16,
    stream: BodyDataStream,
    buffer: String,
}

impl Events {
    async fn of(console: &ConsoleService, path: &str) -> Self {
        Self::at(console, &format!("/events?of={path}")).await
    }

    async fn at(console: &ConsoleService, address: &str) -> Self {
        let request = http::Request::get(address).body(Body::empty()).unwrap();
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

/// Searches in portions of 40 dead letters.
#[derive(Debug)]
struct Portions;

impl Decorator for Portions {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        let Op::DeadLetters(DeadLettersOp::Search {
            at,
            range,
            filter,
            max,
        }) = op
        else {
            return next.run(op);
        };
        Box::pin(async move {
            let dead = next.store.dead_letters();
            let mut found = dead
                .search(at, range, &DeadLetterFilter::default(), 40)
                .await?;
            found.items.retain(|(id, head)| filter.matches(*id, head));
            // A search that has enough ends with the last one that it found.
            if let Some((last, _)) = found.items.get(max - 1) {
                (found.last, found.more) = (Some(*last), true);
                found.items.truncate(max);
            }
            Ok(Answer::DeadLetters(DeadLettersAnswer::Search(found)))
        })
    }
}

#[tokio::test]
async fn a_search_that_a_page_has_cut_goes_on_as_events() {
    let inner = in_memory().await;
    dies(&inner, 120).await;
    let store = Decorated::new(Arc::new(Portions), inner.store());
    let builder = Container::builder().with_store(Arc::new(store));
    let container = builder.connect().await.unwrap();
    let fast = options().with_search_time(std::time::Duration::ZERO);
    let console = service(container, fast.with_max_clients(1));
    // The oldest dead letter is the one that matches.
    let query = "error=card+0+declined";
    let page = get(&console, &format!("/dead/orders/billing?{query}"))
        .await
        .ok();
    let page = page.shows(&["This page searched 40 of 120 dead letters", ">Search on<"]);
    let address = page
        .text
        .split("data-search=\"")
        .nth(1)
        .expect("an address");
    let address = address.split('"').next().unwrap().replace("&amp;", "&");
    let mut events = Events::at(&console, &address).await;
    events
        .next("region", "Searching: 40 of 120 dead letters")
        .await;
    let further = events.next("region", "80 of 120").await;
    assert!(further.contains("value=\"80\""), "{further}");
    let done = events.next("done", "card 0 declined").await;
    assert!(
        !done.contains("Search on") && !done.contains("<progress"),
        "{done}"
    );
    assert!(events.stream.next().await.is_none(), "the stream ends");
    drop(events);
    // A search that finds enough ends there, and leads to the rest.
    let mut events = Events::at(&console, "/dead/orders/billing/search?type=order.placed").await;
    let done = events.next("done", "50 dead letters").await;
    assert!(done.contains("Older dead letters"), "{done}");
    // A page whose search has ended needs no events.
    let whole = get(&console, "/dead/orders/billing?error=a&before=1-1")
        .await
        .ok();
    assert!(!whole.text.contains("data-search"), "{}", whole.text);
    // It counts as a page that follows, and is refused where there are too many.
    let refused = Events::at(&console, "/dead/orders/billing/search?type=order.placed").await;
    assert_eq!(refused.status, 503);
    drop(events);
    for (wrong, status) in [("error=a&until=soon", 400), ("before=x", 404)] {
        let refused = Events::at(&console, &format!("/dead/orders/billing/search?{wrong}")).await;
        assert_eq!(refused.status, status, "{wrong}");
    }
    let nobody = Events::at(&console, "/dead/orders/nobody/search?error=a").await;
    assert_eq!(nobody.status, 404);
}
