//! One request: its visitor and what the pages share.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::access::Access;
use super::failure::Failure;
use super::page::Links;
use super::state::App;
use crate::domain::{EntryId, Group, Timestamp, Topic, describe};
use crate::operate::escape;

/// A request of a visitor.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) app: Arc<App>,
    pub(super) access: Access,
    /// The path within the console.
    pub(super) path: String,
}

impl Visit {
    pub(super) fn links(&self) -> &Links {
        &self.app.links
    }

    /// Whether the pages offer changes to this visitor.
    pub(super) fn may_change(&self) -> bool {
        self.access.is_operator() && !self.app.options.read_only
    }

    /// The time of the store's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.app.container.store().now()
    }
}

impl FromRequestParts<Arc<App>> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        // The service has decided before the router sees the request.
        let access = parts.extensions.get::<Access>().cloned();
        Ok(Self {
            app: Arc::clone(app),
            access: access.unwrap_or(Access::Forbidden),
            path: parts.uri.path().to_owned(),
        })
    }
}

/// A topic's name of a path.
pub(super) fn topic_of(segment: &str) -> Result<Topic, Failure> {
    let topic = Topic::new(Links::name(segment));
    topic.map_err(|error| Failure::not_found(describe(&error)))
}

/// Names of a topic and of a group of a path.
pub(super) fn pair_of(topic: &str, group: &str) -> Result<(Topic, Group), Failure> {
    let group = Group::new(Links::name(group));
    let group = group.map_err(|error| Failure::not_found(describe(&error)))?;
    Ok((topic_of(topic)?, group))
}

pub(super) fn id_of(segment: &str) -> Result<EntryId, Failure> {
    segment.parse().map_err(|_| {
        let shown = escape::excerpt(segment, 80);
        let rule = format!("id \"{shown}\": must be <milliseconds>-<sequence>");
        Failure::not_found(rule)
    })
}
