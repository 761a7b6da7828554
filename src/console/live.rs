//! Live regions: one task renders a region for all browsers that show it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query as Fields;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout};

use super::access::Access;
use super::failure::Failure;
use super::page::{duration, instant, safe};
use super::regions::{Event, Region, event};
use super::state::App;
use super::visit::{Visit, pair_of};
use super::{dead, look, overview};
use crate::domain::Timestamp;

/// Between two renderings.
const PACE: Duration = Duration::from_secs(1);

/// The time limit of a rendering.
const LIMIT: Duration = Duration::from_secs(5);

/// A comment in this time finds out that a browser has gone.
const PULSE: Duration = Duration::from_secs(15);

/// Renders a region as long as somebody follows it.
async fn keep(app: Weak<App>, region: Region, sender: watch::Sender<Event>) {
    let (mut good, mut at): (Instant, Option<Timestamp>) = (Instant::now(), None);
    // One receiver is that of the table.
    while sender.receiver_count() > 1 {
        let Some(app) = app.upgrade() else { return };
        let visit = Visit::of_region(&app, &region.path, region.may_change);
        let now = visit.now();
        let event = match timeout(LIMIT, render(&visit)).await {
            Ok(Ok(html)) => {
                (good, at) = (Instant::now(), Some(now));
                event("region", html)
            }
            Ok(Err(failure)) if failure.status == StatusCode::NOT_FOUND => {
                event("stale", gone(&failure.message))
            }
            Ok(Err(failure)) => event("stale", stale(at, good.elapsed(), &failure.message)),
            Err(_) => {
                let why = format!("the server did not answer within {} s", LIMIT.as_secs());
                event("stale", stale(at, good.elapsed(), &why))
            }
        };
        drop((visit, app));
        sender.send_if_modified(|last| {
            let is_new = **last != *event;
            if is_new {
                *last = event.into();
            }
            is_new
        });
        tokio::time::sleep(PACE).await;
    }
}

fn gone(why: &str) -> Markup {
    html! { div.note.warn { p { (safe(why)) } } }
}

fn stale(at: Option<Timestamp>, age: Duration, why: &str) -> Markup {
    html! {
        div.note.bad {
            p {
                @match at {
                    Some(at) => { strong { "Figures of " (instant(at)) } ", no connection for " (duration(age)) "." },
                    None => strong { "No connection to the server." },
                }
            }
            p.soft { (safe(why)) }
        }
    }
}

async fn render(visit: &Visit) -> Result<Markup, Failure> {
    let parts: Vec<&str> = visit.path.split('/').skip(1).collect();
    match parts[..] {
        [""] => Ok(overview::region(visit).await),
        ["dead"] => dead::causes::region(visit).await,
        ["operations"] => look::operations::list(visit).await,
        ["topics", topic, "groups", group] => {
            let (topic, group) = pair_of(topic, group)?;
            look::group::region(visit, &topic, &group).await
        }
        ["operations", topic, group, id] => {
            let (topic, group) = pair_of(topic, group)?;
            let id = id.parse();
            let id = id.map_err(|_| Failure::not_found("the id of an operation is a UUID"))?;
            look::operations::region(visit, &topic, &group, id).await
        }
        _ => Err(Failure::not_found("this page has no live region")),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Of {
    of: String,
}

/// A stream of events: the region whenever it changes.
pub(super) async fn events(visit: Visit, Fields(of): Fields<Of>) -> Result<Response, Failure> {
    let region = Region {
        path: of.of,
        may_change: visit.may_change(),
    };
    let live = &visit.app.live;
    let Some(permit) = live.admit() else {
        let message = "too many pages follow this console";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let app = Arc::downgrade(&visit.app);
    let receiver = live.follow(&region, |region, sender| {
        tokio::spawn(keep(app, region, sender));
    });
    let follower = Follower {
        receiver,
        first: true,
        _permit: permit,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((event, follower))
    });
    let body = Body::from_stream(events.map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

struct Follower {
    receiver: watch::Receiver<Event>,
    first: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event, or a comment after a while without one. `None` when the task has ended.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.first) {
            let event = self.receiver.borrow_and_update().clone();
            if !event.is_empty() {
                return Some(Bytes::copy_from_slice(event.as_bytes()));
            }
        }
        match timeout(PULSE, self.receiver.changed()).await {
            Ok(Ok(())) => {
                let event = self.receiver.borrow_and_update().clone();
                Some(Bytes::copy_from_slice(event.as_bytes()))
            }
            Ok(Err(_)) => None,
            Err(_) => Some(Bytes::from_static(b": \n\n")),
        }
    }
}

impl Visit {
    /// A visit that renders a region for everybody with the same right. Its name shows nowhere.
    fn of_region(app: &Arc<App>, path: &str, may_change: bool) -> Self {
        Self {
            app: Arc::clone(app),
            access: match may_change {
                true => Access::Operator(String::new()),
                false => Access::Viewer(String::new()),
            },
            path: path.to_owned(),
        }
    }
}
