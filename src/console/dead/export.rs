//! Dead letters as a file, one JSON line each: what the tool's export writes and its import reads.

use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};

use super::filter::FilterForm;
use crate::console::failure::Failure;
use crate::console::visit::{Visit, pair_of};
use crate::domain::{EntryId, Error, Selection};

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
    let ids = ids.collect::<Result<Vec<EntryId>, Error>>();
    let ids = ids.map_err(|_| Failure::invalid("an id has the form <milliseconds>-<sequence>"))?;
    let dead = visit.app.container.dead_letters();
    // Fails for a group that does not exist.
    visit.app.container.topics().group(&topic, &group).await?;
    let selection = match ids.is_empty() {
        false => Selection::Ids(ids),
        true => form.filter(visit.now()).map_err(Failure::invalid)?.into(),
    };
    // A message that dies meanwhile is not in the file.
    let file = format!("attachment; filename=\"{topic}-{group}.ndjson\"").replace(':', "_");
    let pages = dead.pages(&topic, &group, &selection);
    let lines = stream::try_unfold(pages, async |mut pages| {
        let lines = pages.next().await?.map(|letters| {
            let lines = letters.iter().map(|letter| letter.to_json() + "\n");
            lines.collect::<String>()
        });
        Ok::<_, Error>(lines.map(|lines| (lines, pages)))
    });
    let kind = "application/octet-stream".to_owned();
    let headers = [(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, file)];
    Ok((headers, Body::from_stream(lines)).into_response())
}
