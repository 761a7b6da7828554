//! A topic: its settings, its groups and its newest entries.

use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::console::act::fields::FormFields;
use crate::console::act::publish;
use crate::console::act::said::Said;
use crate::console::failure::Failure;
use crate::console::page::{
    Command, Page, Query, ago, counted, excerpt, fact, facts, meter, number, safe,
};
use crate::console::visit::{Visit, topic_of};
use crate::domain::{Codec, EntryId, Timestamp, Topic};
use crate::operate::topics::Entry;
use crate::operate::views::ListedTopic;

/// How many entries a page shows.
const PAGE: usize = 50;

/// Where the list of entries begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct From {
    /// An entry id or a time: the list begins after it, the oldest first.
    from: String,
    /// An entry id: the list begins before it, the newest first.
    before: String,
}

pub(in crate::console) async fn page(
    visit: Visit,
    Path(topic): Path<String>,
    Fields(from): Fields<From>,
    Fields(said): Fields<Said>,
) -> Result<Response, Failure> {
    let topic = topic_of(&topic)?;
    let topics = visit.app.container.topics();
    // The list of groups fails for a topic that does not exist, and names a similar one.
    topics.groups(&topic).await?;
    let status = topics.get(&topic).await?;
    let status = status.ok_or_else(|| Failure::not_found("the topic was removed meanwhile"))?;
    let primaries = topics.primaries(&status).await?;
    let listed = ListedTopic { status, primaries };
    let after = start(&from.from)?;
    let entries = match after {
        Some(after) => topics.entries_after(&topic, Some(after), PAGE).await?,
        None => {
            topics
                .entries_before(&topic, start(&from.before)?, PAGE)
                .await?
        }
    };
    // Heavy entries come in short pages, so that the number does not tell the end.
    let has_more = match (entries.last().map(|entry| entry.id), after) {
        (None, _) => false,
        (Some(_), _) if entries.len() == PAGE => true,
        (last, Some(_)) => !topics.entries_after(&topic, last, 1).await?.is_empty(),
        (last, None) => !topics.entries_before(&topic, last, 1).await?.is_empty(),
    };
    let command = Command::new(&["tail"]).arg(&topic);
    let oldest = entries.iter().map(|entry| entry.id).min();
    let command = match oldest.filter(|_| after.is_some() || !from.before.is_empty()) {
        Some(oldest) => command
            .option("--from", Some(oldest))
            .option("--max", Some(entries.len())),
        None => command.option("--last", Some(PAGE)),
    };
    let body = html! {
        (said.show())
        (summary(&visit, &listed))
        h2 { "Entries" }
        form.row method="get" action=(visit.links().topic(&topic)) {
            label { "Begin at a time or after an id"
                input name="from" value=(from.from) placeholder="2026-03-01T14:00Z or 1772373600000-0"; }
            button.quiet type="submit" { "Show" }
            @if after.is_some() { a href=(visit.links().topic(&topic)) { "Show the newest" } }
        }
        (list(&visit, &topic, (&entries, has_more), after.is_some()))
        (command.show())
        @if visit.may_change() {
            details.publish {
                summary { "Publish a message" }
                (publish::form(&visit, &topic, &FormFields::default()))
            }
        }
    };
    let page = Page::new(&visit, topic.to_string(), body);
    Ok(page
        .under("Overview", visit.links().overview())
        .into_response())
}

/// The id that a text names, or the last id before the time that it names.
fn start(text: &str) -> Result<Option<EntryId>, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(id) = text.parse::<EntryId>() {
        return Ok(Some(id));
    }
    let time: Timestamp = text.parse().map_err(|_| {
        let shown = excerpt(text, 80);
        Failure::invalid(format!(
            "\"{shown}\": give a time as RFC 3339, such as 2026-03-01T14:00:00Z, or an entry id"
        ))
    })?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    Ok(Some(EntryId::new(millis.saturating_sub(1), u64::MAX)))
}

fn summary(visit: &Visit, listed: &ListedTopic) -> Markup {
    let status = &listed.status;
    let (topic, links) = (&status.topic, visit.links());
    let limit = status.settings.backlog_limit();
    let backlog = status
        .groups
        .iter()
        .map(|group| group.lag + group.in_flight);
    let backlog = backlog.max().unwrap_or(status.entries);
    facts(html! {
        (fact("Entries", html! { (number(status.entries)) }))
        (fact("Retention", html! { (status.settings.retention()) }))
        @if status.settings.partitions() > 1 {
            (fact("Partitions", html! { (status.settings.partitions()) }))
        }
        @if !listed.primaries.is_empty() {
            (fact("Primaries", html! { (listed.primaries_in_words()) }))
        }
        @if limit == u64::MAX {
            (fact("Backlog limit", html! { "none" }))
        } @else {
            (fact("Backlog of the slowest group", html! {
                (number(backlog)) " of " (number(limit)) " " (meter(backlog, limit, "backlog"))
            }))
        }
        (fact("Groups", html! {
            @if status.groups.is_empty() { "none; messages wait for the first one" }
            @for (at, group) in status.groups.iter().enumerate() {
                @if at > 0 { ", " }
                a href=(links.group(topic, &group.group)) { (group.group) }
                span.soft { " lag " (number(group.lag)) }
            }
        }))
    })
}

fn list(
    visit: &Visit,
    topic: &Topic,
    (entries, has_more): (&[Entry], bool),
    from_a_place: bool,
) -> Markup {
    if entries.is_empty() {
        return html! {
            div.empty {
                @if from_a_place { p { "No entries after this place." } }
                @else { p { "The topic has no entries. Publish one: "
                    code { "redstart publish " (topic) " --type order.placed" } } }
            }
        };
    }
    let now = visit.now();
    let order = if from_a_place {
        "the oldest first"
    } else {
        "the newest first"
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Entries" {
            table {
                caption { (counted(entries.len() as u64, "entry", "entries")) ", " (order) }
                thead { tr {
                    th scope="col" { "Id" } th scope="col" { "Published" } th scope="col" { "Type" }
                    th scope="col" { "Payload" }
                } }
                tbody {
                    @for entry in entries {
                        tr {
                            th scope="row" { a.mono href=(visit.links().entry(topic, entry.id)) { (entry.id) } }
                            td { @if let Some(time) = entry.id.time() { (ago(time, now)) } }
                            @match &entry.envelope {
                                Ok(envelope) => {
                                    td.wrap { (excerpt(envelope.message_type(), 80)) }
                                    td.wrap.mono { (preview(visit, envelope)) }
                                }
                                Err(flaw) => {
                                    td { span.badge.bad { "undecodable" } }
                                    td.wrap { (safe(&flaw.to_string())) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if has_more { @if let Some(last) = entries.last() {
            @let (field, name) = if from_a_place { ("from", "Newer entries") } else { ("before", "Older entries") };
            @let next = Query::default().with(field, last.id.to_string());
            p { a href=(next.on(&visit.links().topic(topic))) { (name) } }
        } }
    }
}

fn preview(visit: &Visit, envelope: &crate::domain::Envelope) -> Markup {
    if !visit.app.options.payloads {
        return html! { span.soft { "hidden" } };
    }
    let payload = envelope.raw_payload();
    match payload.to_codec(Codec::Json) {
        Ok(json) => {
            let text = String::from_utf8_lossy(&json.as_bytes()[..json.as_bytes().len().min(400)]);
            html! { (excerpt(&text, 100)) }
        }
        Err(_) => {
            html! { span.soft { (counted(payload.as_bytes().len() as u64, "byte", "bytes")) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_id_or_a_time() {
        let at = |text: &str| start(text).map(|id| id.map(|id| id.to_string()));
        assert_eq!(at(" ").unwrap(), None);
        assert_eq!(at("17-2").unwrap().unwrap(), "17-2");
        let time = at("1970-01-01T00:00:01Z").unwrap().unwrap();
        assert_eq!(time, "999-18446744073709551615");
        assert!(at("soon").is_err());
    }
}
