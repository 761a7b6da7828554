//! The search among dead letters: a page shows its beginning, and the script follows its progress.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::Instant;

use super::filter::FilterForm;

use super::rows::table;
use crate::console::failure::Failure;
use crate::console::page::{counted, instant, number};
use crate::console::regions::event;
use crate::console::visit::{Visit, id_of, pair_of};
use crate::domain::{DeadLetterFilter, DeadLetterSummary, EntryId, Error, Group, Topic};

/// How many dead letters a page shows.
const PAGE: usize = 50;

/// Where a page of dead letters begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Place {
    /// The last id of the page before. The list goes from the newest to the oldest.
    before: String,
}

impl Place {
    pub(super) fn before(&self) -> Result<Option<EntryId>, Failure> {
        match self.before.as_str() {
            "" => Ok(None),
            id => Ok(Some(id_of(id)?)),
        }
    }
}

/// What a search has found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    items: Vec<(EntryId, DeadLetterSummary)>,
    looked: u64,
    /// Where the search continues; `None` where it has ended.
    next: Option<EntryId>,
}

impl Found {
    /// A search that begins before an id, or with the newest.
    pub(super) fn from(before: Option<EntryId>) -> Self {
        Self {
            next: before,
            ..Self::default()
        }
    }

    fn is_full(&self) -> bool {
        self.items.len() >= PAGE
    }

    /// Whether the search has stopped before the page was full.
    fn is_cut(&self) -> bool {
        self.next.is_some() && !self.is_full()
    }

    /// Whether the search has ended and found none.
    pub(super) fn is_nothing(&self) -> bool {
        self.items.is_empty() && self.next.is_none()
    }
}

/// A search among the dead letters of a group.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) visit: &'a Visit,
    pub(super) topic: &'a Topic,
    pub(super) group: &'a Group,
    pub(super) form: &'a FilterForm,
    pub(super) before: Option<EntryId>,
    /// How many dead letters the group has.
    pub(super) dead: u64,
}

impl Search<'_> {
    /// Searches on, the newest first, until the page is full or the time is over. A filter that finds
    /// little ends early, so that the visitor sees what it has found.
    pub(super) async fn search(
        &self,
        filter: &DeadLetterFilter,
        found: &mut Found,
        time: Duration,
    ) -> Result<(), Error> {
        let dead = self.visit.app.container.dead_letters();
        let began = Instant::now();
        loop {
            let left = PAGE - found.items.len();
            let page = dead.list_newest(self.topic, self.group, filter, found.next, left);
            let page = page.await?;
            found.items.extend(page.items);
            // Over partitions some of them are looked at again.
            found.looked = (found.looked + page.looked).min(self.dead);
            found.next = page.next;
            if !found.is_cut() || began.elapsed() >= time {
                return Ok(());
            }
        }
    }

    /// The result, with the address of the events that continue a search that was cut.
    pub(super) fn region(&self, found: &Found) -> Markup {
        let address = format!("{}/search", self.visit.links().dead(self.topic, self.group));
        let query = self.form.query();
        let query = query.with(
            "before",
            self.before.map_or_else(String::new, |id| id.to_string()),
        );
        let follow = found.is_cut().then(|| query.on(&address));
        html! { div data-search=[follow] { (self.result(found, false)) } }
    }

    fn result(&self, found: &Found, running: bool) -> Markup {
        let (visit, topic, group) = (self.visit, self.topic, self.group);
        let place = found
            .next
            .filter(|_| found.is_cut())
            .and_then(EntryId::time);
        html! {
            @if let Some(time) = place {
                p.soft {
                    @if running { "Searching: " } @else { "This page searched " }
                    (number(found.looked)) " of " (counted(self.dead, "dead letter", "dead letters"))
                    ", back to " (instant(time)) "."
                }
                @if running {
                    progress max=(self.dead) value=(found.looked) aria-label="Dead letters searched" {}
                }
            }
            @if found.is_nothing() { (self.nothing()) }
            @if !found.items.is_empty() { (table(visit, topic, group, &found.items)) }
            @if let Some(next) = found.next {
                @let query = self.form.query().with("before", next.to_string());
                p { a href=(query.on(&visit.links().dead(topic, group))) {
                    @if found.is_cut() { "Search on" } @else { "Older dead letters" }
                } }
            }
        }
    }

    fn nothing(&self) -> Markup {
        html! {
            div.empty {
                @if self.form.is_empty() {
                    p { strong { "No dead letters." } " This group handled every message, or tries it again." }
                    p { a href=(self.visit.links().group(self.topic, self.group)) { "Go to the group" } }
                } @else {
                    p { "None of " (counted(self.dead, "dead letter", "dead letters")) " matches this filter." }
                    p { a href=(self.visit.links().dead(self.topic, self.group)) { "Show all" } }
                }
            }
        }
    }
}

/// A search that a stream of events continues.
struct Running {
    visit: Visit,
    topic: Topic,
    group: Group,
    form: FilterForm,
    before: Option<EntryId>,
    dead: u64,
    filter: DeadLetterFilter,
    found: Found,
    ended: bool,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let search = Search {
            visit: &self.visit,
            topic: &self.topic,
            group: &self.group,
            form: &self.form,
            before: self.before,
            dead: self.dead,
        };
        let time = self.visit.app.options.search_time;
        // A stream that fails ends. The page keeps what it has, and its link.
        search
            .search(&self.filter, &mut self.found, time)
            .await
            .ok()?;
        let running = self.found.is_cut();
        let text = search.result(&self.found, running);
        self.ended = !running;
        let name = if running { "region" } else { "done" };
        Some(Bytes::from(event(name, text)))
    }
}

/// A search as a stream of events: its results whenever it has come further. The last event is `done`.
pub(in crate::console) async fn events(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    Fields(form): Fields<FilterForm>,
    Fields(place): Fields<Place>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let dead = visit
        .app
        .container
        .topics()
        .group(&topic, &group)
        .await?
        .dead;
    let before = place.before()?;
    let filter = form.filter(visit.now()).map_err(Failure::invalid)?;
    let Some(permit) = visit.app.live.admit() else {
        let message = "too many pages follow this console";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let running = Running {
        visit,
        topic,
        group,
        form,
        before,
        dead,
        filter,
        found: Found::from(before),
        ended: false,
        _permit: permit,
    };
    let events = stream::unfold(running, |mut running| async {
        let event = running.next().await?;
        Some((event, running))
    });
    let body = Body::from_stream(events.map(Ok::<Bytes, std::convert::Infallible>));
    Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}
