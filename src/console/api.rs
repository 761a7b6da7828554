//! The same as JSON, in the dialect of the tool.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::act::fields::FormFields;
use super::act::sweep::{self, Tried};
use super::act::sweep_form::SweepForm;
use super::dead::filter::FilterForm;
use super::failure::Failure;
use super::look::{self, operations};
use super::page::Links;
use super::state::App;
use super::visit::{Visit, id_of, pair_of};
use crate::domain::{Group, Topic};
use crate::operate::dead_letters::{JournalEntry, PlannedSweep};
use crate::operate::plan::Plan;
use crate::operate::views::{ListedDeadLetter, ListedGroup, ListedTopic, ShownGroup};
use crate::operate::{escape, exposition};

/// How many items a list has at most, and by default.
const MOST: usize = 1_000;
const PAGE: usize = 50;

/// A list of retries ends where their messages are this large together, in bytes.
const LARGEST: usize = 16 << 20;

/// The routes that read.
pub(super) fn reads() -> Router<Arc<App>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/topics", get(topics))
        .route("/api/v1/gauges", get(gauges))
        .route("/api/v1/groups", get(groups))
        .route("/api/v1/groups/{topic}/{group}", get(group))
        .route("/api/v1/dead", get(causes))
        .route("/api/v1/dead/{topic}/{group}", get(list))
        .route("/api/v1/dead/{topic}/{group}/{id}", get(letter))
        .route("/api/v1/retries/{topic}/{group}", get(retries))
        .route("/api/v1/operations", get(journal))
        .route("/api/v1/doctor", get(doctor))
}

/// The routes that change.
pub(super) fn changes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/dead/{topic}/{group}/sweep", post(begin))
        .route(
            "/api/v1/operations/{topic}/{group}/{id}/stop",
            post(sweep::stop),
        )
        .route(
            "/api/v1/operations/{topic}/{group}/{id}/resume",
            post(sweep::resume),
        )
}

/// Whether a path belongs to programs rather than to people.
pub(super) fn is_api(path: &str) -> bool {
    path.starts_with("/api/v1/")
}

/// A failure as the tool writes it.
pub(super) fn failed(failure: &Failure) -> Response {
    let kind = match failure.status.as_u16() {
        400 | 422 => "invalid",
        401 | 403 => "denied",
        404 | 405 => "not-found",
        409 => "refused",
        429 | 503 => "unavailable",
        _ => "failed",
    };
    answer(&json!({"error": {"kind": kind, "message": failure.message}}))
}

fn answer<T: Serialize + ?Sized>(value: &T) -> Response {
    match escape::to_json(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => {
            let message = format!("the answer has no JSON form: {error}");
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

async fn metrics(visit: Visit) -> Response {
    let seen = visit.app.poll.look().await;
    let figures = seen.figures.filter(|_| seen.stale.is_none());
    let text = exposition::of_poll(figures.as_ref().map(|one| &one.topics[..]), seen.took);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
}

async fn topics(visit: Visit) -> Result<Response, Failure> {
    let (topics, mut listed) = (visit.app.container.topics(), Vec::new());
    for status in topics.list().await? {
        let primaries = topics.primaries(&status).await?;
        listed.push(ListedTopic { status, primaries });
    }
    Ok(answer(&listed))
}

async fn gauges(visit: Visit) -> Result<Response, Failure> {
    let seen = visit.app.poll.look().await;
    match (seen.figures, seen.stale) {
        (Some(figures), None) => Ok(answer(&figures.topics)),
        (_, stale) => {
            let why = stale.map_or_else(|| "no figures yet".to_owned(), |(_, why)| why);
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

async fn groups(visit: Visit) -> Result<Response, Failure> {
    let topics = visit.app.container.topics();
    let mut all = Vec::new();
    for status in topics.list().await? {
        let ages = topics.ages(&status.topic).await?;
        for group in &status.groups {
            all.push(json!(ListedGroup::new(&status.topic, group, &ages)));
        }
    }
    Ok(answer(&all))
}

async fn group(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let topics = visit.app.container.topics();
    let status = topics.group(&topic, &group).await?;
    let ages = topics.ages(&topic).await?;
    let consumers = topics.in_flight(&topic, &group).await?;
    let listed = ListedGroup::new(&topic, &status, &ages);
    let partitions = topics.owned_partitions(&topic, &group).await?;
    Ok(answer(&ShownGroup::new(listed, &consumers, &partitions)))
}

async fn causes(visit: Visit) -> Result<Response, Failure> {
    let dead = visit.app.container.dead_letters();
    let mut all = Vec::new();
    for status in visit.app.container.topics().list().await? {
        for group in status.groups.iter().filter(|group| group.dead > 0) {
            let summary = dead.summary(&status.topic, &group.group, MOST).await?;
            all.extend(summary.causes);
        }
    }
    Ok(answer(&all))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Place {
    before: String,
    max: Option<usize>,
}

async fn list(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    Fields(form): Fields<FilterForm>,
    Fields(place): Fields<Place>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    visit.app.container.topics().group(&topic, &group).await?;
    let filter = form.filter(visit.now()).map_err(Failure::invalid)?;
    let before = match place.before.as_str() {
        "" => None,
        id => Some(id_of(id)?),
    };
    let max = place.max.unwrap_or(PAGE).clamp(1, MOST);
    let dead = visit.app.container.dead_letters();
    let page = dead
        .list_newest(&topic, &group, &filter, before, max)
        .await?;
    let items = page.items.iter();
    let items: Vec<_> = items
        .map(|(id, summary)| ListedDeadLetter::new(*id, summary))
        .collect();
    Ok(answer(&json!({"items": items, "next": page.next})))
}

async fn letter(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, id_of(&id)?);
    if !visit.app.options.payloads {
        return Err(Failure::not_found("this console hides payloads"));
    }
    let found = visit
        .app
        .container
        .dead_letters()
        .get(&topic, &group, &[id])
        .await?;
    let gone = || Failure::not_found("the group does not have this dead letter");
    let letter = found.into_iter().next().ok_or_else(gone)?;
    Ok((
        [(CONTENT_TYPE, "application/json")],
        escape::json(&letter.to_json()) + "\n",
    )
        .into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Most {
    max: Option<usize>,
}

/// Ends at a number or a size. The header `link` then has the address of the next ones.
async fn retries(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    Fields(after): Fields<look::retries::After>,
    Fields(most): Fields<Most>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    if !visit.app.options.payloads {
        return Err(Failure::not_found("this console hides payloads"));
    }
    let retries = visit.app.container.retries();
    let most = most.max.unwrap_or(MOST).clamp(1, MOST);
    let (mut all, mut last, mut size) = (Vec::new(), after.retry()?, 0);
    while all.len() < most && size < LARGEST {
        let left = most - all.len();
        let page = retries.list(&topic, &group, last.as_ref(), left).await?;
        let Some(end) = page.last() else {
            return Ok(answer(&all));
        };
        last = Some(end.clone());
        let fields = page.iter().flat_map(|retry| &retry.fields);
        size += fields.map(|(_, value)| value.len()).sum::<usize>();
        all.extend(page);
    }
    let mut answer = answer(&all);
    let Some(last) = last else {
        return Ok(answer);
    };
    if !retries
        .list(&topic, &group, Some(&last), 1)
        .await?
        .is_empty()
    {
        let list = format!("/api/v1{}", Links::new("").retries(&topic, &group));
        let next = look::retries::after(&last, &visit.links().to(&list));
        let next = HeaderValue::try_from(format!("<{next}>; rel=\"next\""));
        answer
            .headers_mut()
            .extend(next.ok().map(|next| (LINK, next)));
    }
    Ok(answer)
}

/// An operation with the group that it changed.
#[derive(Serialize)]
struct Operation<'a> {
    topic: &'a Topic,
    group: &'a Group,
    #[serde(flatten)]
    entry: &'a JournalEntry,
    running: bool,
}

async fn journal(visit: Visit) -> Result<Response, Failure> {
    let all = operations::all(&visit).await?;
    let all: Vec<_> = all
        .iter()
        .map(|one| Operation {
            topic: &one.topic,
            group: &one.group,
            entry: &one.entry,
            running: visit.app.sweeps.get(one.entry.id).is_some(),
        })
        .collect();
    Ok(answer(&all))
}

async fn doctor(visit: Visit) -> Response {
    answer(&*visit.app.poll.examine().await)
}

/// A plan with the times that its confirmation sends.
#[derive(Serialize)]
struct PlannedOrder<'a> {
    #[serde(flatten)]
    plan: Plan<PlannedSweep>,
    #[serde(skip_serializing_if = "str::is_empty")]
    since: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    until: &'a str,
}

/// Plans or begins a sweep. The body has the fields of the form; `confirm` is what an operator types,
/// and with `dryRun` the answer is the plan.
async fn begin(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    if !is_json(&headers) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::new(status, "the body must be application/json"));
    }
    let value: Value = serde_json::from_str(&body)
        .map_err(|error| Failure::invalid(format!("the body is not JSON: {error}")))?;
    let (fields, dry_run) = fields(&value).map_err(Failure::invalid)?;
    let form = SweepForm::read(&fields).map_err(Failure::invalid)?;
    if dry_run {
        let form = form.at(visit.now());
        let sweep = form
            .sweep(visit.access.name(), visit.now())
            .map_err(Failure::invalid)?;
        let plan = visit
            .app
            .container
            .dead_letters()
            .plan(&topic, &group, sweep)
            .await?;
        let (since, until) = (&*form.filter.since, &*form.filter.until);
        return Ok(answer(&PlannedOrder { plan, since, until }));
    }
    match sweep::attempt(&visit, &topic, &group, &form).await? {
        Tried::Begun(id) => Ok(answer(&json!({"operation": id}))),
        Tried::Nothing => Ok(answer(&json!({"operation": null}))),
        Tried::Refused(rule, _) => Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, rule)),
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The fields of a form from an object of JSON.
fn fields(value: &Value) -> Result<(FormFields, bool), String> {
    let object = value.as_object().ok_or("the body must be an object")?;
    let (mut fields, mut dry_run) = (Vec::new(), false);
    for (name, value) in object {
        // The names are those of the tool's JSON.
        let name = match name.as_str() {
            "dryRun" => {
                dry_run = value.as_bool().ok_or("dryRun must be true or false")?;
                continue;
            }
            "ids" => "id",
            "watermark" => "up_to",
            "confirm" => "typed",
            "failureLimit" => "stop",
            "errorPattern" => "error_pattern",
            "minAttempts" => "min_attempts",
            "maxAttempts" => "max_attempts",
            "redrivenBy" => "redriven_by",
            name @ ("action" | "all" | "to" | "rate" | "ramp" | "note" | "reason"
            | "fingerprint" | "error" | "type" | "tenant" | "correlation" | "since"
            | "until" | "redriven") => name,
            other => return Err(format!("{other} is not a field of a sweep")),
        };
        let values = match value {
            Value::Array(all) => all.iter().collect(),
            one => vec![one],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(set) if name == "redriven" => {
                    if *set { "yes" } else { "no" }.to_owned()
                }
                Value::Bool(true) => "1".to_owned(),
                Value::Bool(false) | Value::Null => continue,
                _ => return Err(format!("{name} must be a text or a number")),
            };
            match (name, text.as_str()) {
                // Messages without a tenant have an empty one.
                ("tenant", "") => fields.push(("no_tenant".to_owned(), "1".to_owned())),
                _ => fields.push((name.to_owned(), text)),
            }
        }
    }
    Ok((FormFields(fields), dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntryId;

    #[test]
    fn an_object_has_the_fields_of_the_form() {
        let value = json!({
            "action": "purge", "ids": ["1-1", "2-2"], "confirm": 2, "dryRun": true,
            "tenant": "", "redriven": false, "all": false, "note": null,
        });
        let (fields, dry_run) = fields(&value).unwrap();
        assert!(dry_run);
        let form = SweepForm::read(&fields).unwrap();
        let expected: Vec<EntryId> = ["1-1", "2-2"].map(|id| id.parse().unwrap()).into();
        assert_eq!(form.ids, expected);
        assert_eq!(fields.get("no_tenant"), "1");
        assert_eq!(fields.get("redriven"), "no");
        assert_eq!(fields.get("typed"), "2");
        for wrong in [
            json!([]),
            json!({"surprise": 1}),
            json!({"error": {}}),
            json!({"dryRun": 1}),
        ] {
            assert!(super::fields(&wrong).is_err(), "{wrong}");
        }
    }
}
