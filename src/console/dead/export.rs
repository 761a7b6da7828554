//! Dead letters as a file, one JSON line each: what the tool's export writes and its import reads.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use super::filter::FilterForm;
use crate::console::failure::Failure;
use crate::console::visit::{Visit, pair_of};
use crate::domain::{DeadLetterFilter, EntryId, Error, Group, Topic};
use crate::operate::dead_letters::DeadLetters;

/// How many dead letters the console holds at once.
const PAGE: usize = 100;

/// An export under way.
struct Export {
    dead: DeadLetters,
    topic: Topic,
    group: Group,
    rest: Rest,
}

/// The rest of the export.
enum Rest {
    Ids(VecDeque<EntryId>),
    Matching {
        filter: Box<DeadLetterFilter>,
        after: Option<EntryId>,
        /// The newest dead letter when the export began.
        until: EntryId,
    },
    Nothing,
}

pub(in crate::console) async fn get(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    if !visit.app.options.payloads {
        return Err(Failure::not_found("this console hides payloads"));
    }
    let query = query.unwrap_or_default();
    let read = |text: &str| -> Result<(Vec<(String, String)>, FilterForm), Failure> {
        let uri: http::Uri = format!("/?{text}")
            .parse()
            .map_err(|_| Failure::invalid("the address is not valid"))?;
        let wrong = |_| Failure::invalid("the address has a field twice");
        let pairs = axum::extract::Query::try_from_uri(&uri).map_err(wrong)?.0;
        let form = axum::extract::Query::try_from_uri(&uri).map_err(wrong)?.0;
        Ok((pairs, form))
    };
    let (pairs, form) = read(&query)?;
    let ids = pairs
        .iter()
        .filter(|(name, _)| name == "id")
        .map(|(_, id)| id.parse());
    let ids = ids.collect::<Result<VecDeque<EntryId>, Error>>();
    let ids = ids.map_err(|_| Failure::invalid("an id has the form <milliseconds>-<sequence>"))?;
    let dead = visit.app.container.dead_letters();
    // Fails for a group that does not exist.
    visit.app.container.topics().group(&topic, &group).await?;
    let rest = match (ids.is_empty(), dead.newest(&topic, &group).await?) {
        (false, _) => Rest::Ids(ids),
        (true, None) => Rest::Nothing,
        (true, Some(until)) => Rest::Matching {
            filter: Box::new(form.filter(visit.now()).map_err(Failure::invalid)?),
            after: None,
            until,
        },
    };
    let file = format!("attachment; filename=\"{topic}-{group}.ndjson\"").replace(':', "_");
    let export = Export {
        dead,
        topic,
        group,
        rest,
    };
    let lines = stream::try_unfold(export, async |mut export| {
        let lines = export.next().await?;
        Ok::<_, Error>(lines.map(|lines| (lines, export)))
    });
    let kind = "application/octet-stream".to_owned();
    let headers = [(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, file)];
    Ok((headers, Body::from_stream(lines)).into_response())
}

impl Export {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let ids: Vec<EntryId> = match &mut self.rest {
            Rest::Nothing => return Ok(None),
            Rest::Ids(ids) if ids.is_empty() => return Ok(None),
            Rest::Ids(ids) => ids.drain(..ids.len().min(PAGE)).collect(),
            Rest::Matching {
                filter,
                after,
                until,
            } => {
                let (dead, until) = (&self.dead, *until);
                let page = dead
                    .list(&self.topic, &self.group, filter, *after, PAGE)
                    .await?;
                let ids = page.items.iter().map(|(id, _)| *id);
                let ids = ids.take_while(|id| *id <= until).collect();
                match page.next.filter(|next| *next < until) {
                    Some(next) => *after = Some(next),
                    None => self.rest = Rest::Nothing,
                }
                ids
            }
        };
        let letters = self.dead.get(&self.topic, &self.group, &ids).await?;
        let lines: String = letters
            .iter()
            .map(|letter| letter.to_json() + "\n")
            .collect();
        Ok(Some(lines.into()))
    }
}
