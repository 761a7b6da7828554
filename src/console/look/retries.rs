//! The scheduled retries of a group, the next first.

use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::console::act::said::Said;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, Query, ago, counted, excerpt, safe};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{DeliveryHistory, Envelope, Group, Timestamp, Topic};
use crate::operate::retries::ScheduledRetry;
use crate::store::DeliveryId;

const PAGE: usize = 50;

/// The retry after which a page begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct After {
    due: Option<i64>,
    id: String,
}

/// The address of the list after a retry.
pub(in crate::console) fn after(last: &ScheduledRetry, list: &str) -> String {
    let query = Query::default().with("due", last.due.as_millis().to_string());
    query.with("id", last.id.to_string()).on(list)
}

impl After {
    pub(in crate::console) fn retry(&self) -> Result<Option<ScheduledRetry>, Failure> {
        let Some(due) = self.due else { return Ok(None) };
        let wrong = || Failure::invalid("the address names no place in the list");
        let due = Timestamp::from_millis(due).map_err(|_| wrong())?;
        let id: DeliveryId = self.id.parse().map_err(|_| wrong())?;
        Ok(Some(ScheduledRetry {
            id,
            due,
            due_in: std::time::Duration::ZERO,
            envelope: Err(String::new().into()),
            history: DeliveryHistory::default(),
            fields: Vec::new(),
        }))
    }
}

pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    Fields(after): Fields<After>,
    Fields(said): Fields<Said>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let status = visit.app.container.topics().group(&topic, &group).await?;
    let after = after.retry()?;
    let retries = visit.app.container.retries();
    let list = retries.list(&topic, &group, after.as_ref(), PAGE).await?;
    // The store returns fewer where messages are large, so that the number does not tell the end.
    let more = match list.last() {
        Some(last) => !retries
            .list(&topic, &group, Some(last), 1)
            .await?
            .is_empty(),
        None => false,
    };
    let command = Command::new(&["retries", "list"]).arg(&topic).arg(&group);
    let body = html! {
        (said.show())
        p.soft { "Failed messages before their next attempt, and snoozed messages: "
            (counted(status.scheduled, "message", "messages")) "." }
        (table(&visit, &topic, &group, &list, more))
        (command.show())
    };
    let page = Page::new(&visit, format!("Retries of {topic}/{group}"), body)
        .under("Overview", visit.links().overview())
        .under(topic.to_string(), visit.links().topic(&topic))
        .under(group.to_string(), visit.links().group(&topic, &group));
    Ok(page.into_response())
}

fn table(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    list: &[ScheduledRetry],
    more: bool,
) -> Markup {
    if list.is_empty() {
        return html! { div.empty { p { "No retries are scheduled here." } } };
    }
    let (now, may) = (visit.now(), visit.may_change());
    let plan = format!("{}/plan", visit.links().retries(topic, group));
    let rows = html! {
        div.scroll tabindex="0" role="region" aria-label="Retries" {
            table {
                caption { (counted(list.len() as u64, "retry", "retries")) ", the next first" }
                thead { tr {
                    @if may { th scope="col" {
                        input type="checkbox" data-select-all hidden aria-label="Select all on this page";
                        span.hidden { "Select" }
                    } }
                    th scope="col" { "Id" } th scope="col" { "Due" } th.n scope="col" { "Attempts" }
                    th scope="col" { "Type" } th scope="col" { "Last error" }
                } }
                tbody { @for retry in list { (row(retry, now, may)) } }
            }
        }
    };
    html! {
        @if may {
            form method="get" action=(plan) {
                (rows)
                div.row {
                    button type="submit" name="action" value="run-now" { "Run selected now…" }
                    button.quiet type="submit" name="action" value="cancel" { "Cancel selected…" }
                }
            }
            form.row method="get" action=(plan) {
                input type="hidden" name="all" value="1";
                button.quiet type="submit" name="action" value="run-now" { "Run all now…" }
                button.quiet type="submit" name="action" value="cancel" { "Cancel all…" }
            }
        } @else { (rows) }
        @if let Some(last) = list.last().filter(|_| more) {
            p { a href=(after(last, &visit.links().retries(topic, group))) { "Next retries" } }
        }
    }
}

fn row(retry: &ScheduledRetry, now: Timestamp, may_change: bool) -> Markup {
    let envelope = retry.envelope.as_ref().ok();
    let kind = envelope.map_or("undecodable", Envelope::message_type);
    let error = envelope.and_then(Envelope::last_error).unwrap_or_default();
    html! {
        tr {
            @if may_change { td {
                input type="checkbox" name="id" value=(retry.id) aria-label={ "Select " (retry.id) };
            } }
            th scope="row" { span.mono { (retry.id) } }
            td { (ago(retry.due, now)) }
            td.n { @if let Some(one) = envelope { (one.failed_attempts()) } }
            td.wrap { (safe(kind)) }
            td.wrap { (excerpt(error, 300)) }
        }
    }
}
