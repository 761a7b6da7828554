//! The dead letters of a group that match a filter.

use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::Instant;

use super::filter::FilterForm;
use crate::console::act::said::Said;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, ago, counted, excerpt, instant, number, person, safe};
use crate::console::visit::{Visit, id_of, pair_of};
use crate::domain::{
    CountBy, DeadLetterFilter, DeadLetterSummary, EntryId, Error, Group, Timestamp, Topic,
};
use crate::operate::dead_letters::DeadLetterPage;

/// How many dead letters a page shows.
const PAGE: usize = 50;

/// How many types and tenants a page counts.
const FACETS: usize = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Place {
    /// The last id of the page before. The list goes from the newest to the oldest.
    before: String,
}

pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    Fields(form): Fields<FilterForm>,
    Fields(place): Fields<Place>,
    Fields(said): Fields<Said>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let status = visit.app.container.topics().group(&topic, &group).await?;
    let address = visit.links().dead(&topic, &group);
    let before = match place.before.as_str() {
        "" => None,
        id => Some(id_of(id)?),
    };
    let command = Command::new(&["dead", "list", "--newest"])
        .arg(&topic)
        .arg(&group);
    let (rows, wrong) = match form.filter(visit.now()) {
        Ok(filter) => {
            let found = search(&visit, &topic, &group, &filter, before).await?;
            (Some(found), None)
        }
        Err(rule) => (None, Some(rule)),
    };
    let body = html! {
        (said.show())
        @if let Some(rule) = &wrong { div.note.bad role="alert" { p { (safe(rule)) } } }
        (form.show(&address))
        (note(&visit, &topic, &group, &form).await?)
        @if form.is_empty() && before.is_none() { (facets(&visit, &topic, &group).await?) }
        @if let Some(found) = &rows {
            @let cut = found.next.filter(|_| found.items.len() < PAGE);
            @if let Some(time) = cut.and_then(EntryId::time) {
                p.soft {
                    "This page searched " (number(found.looked)) " of "
                    (counted(status.dead, "dead letter", "dead letters")) ", back to " (instant(time)) "."
                }
            }
            @if found.items.is_empty() && cut.is_none() {
                (nothing(&visit, &topic, &group, &form, status.dead))
            } @else {
                (choose_all(&visit, &topic, &group, &form, status.dead))
                @if !found.items.is_empty() { (table(&visit, &topic, &group, &found.items)) }
                @if let Some(next) = found.next {
                    @let query = form.query().with("before", next.to_string());
                    p { a href=(query.on(&address)) {
                        @if cut.is_some() { "Search on" } @else { "Older dead letters" }
                    } }
                }
            }
        }
        (form.on(command).option("--before", before).show())
    };
    let page = Page::new(&visit, format!("Dead letters of {topic}/{group}"), body)
        .under("Dead letters", visit.links().to("/dead"));
    Ok(page.into_response())
}

/// A page of the matching dead letters, the newest first. A filter that finds little ends early, so
/// that the visitor sees what it has found.
async fn search(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    filter: &DeadLetterFilter,
    before: Option<EntryId>,
) -> Result<DeadLetterPage, Error> {
    let dead = visit.app.container.dead_letters();
    let (began, mut from) = (Instant::now(), before);
    let mut found = DeadLetterPage::default();
    loop {
        let left = PAGE - found.items.len();
        let page = dead.list_newest(topic, group, filter, from, left).await?;
        found.items.extend(page.items);
        found.looked += page.looked;
        found.next = page.next;
        from = page.next;
        let is_full = found.items.len() >= PAGE;
        if from.is_none() || is_full || began.elapsed() >= visit.app.options.search_time {
            return Ok(found);
        }
    }
}

/// The note on the cause that the filter names, and for operators its form.
async fn note(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    form: &FilterForm,
) -> Result<Markup, Error> {
    if form.fingerprint.is_empty() {
        return Ok(html! {});
    }
    let notes = visit
        .app
        .container
        .dead_letters()
        .notes(topic, group)
        .await?;
    let note = notes
        .into_iter()
        .find(|note| note.fingerprint == form.fingerprint);
    let text = note.as_ref().map_or("", |note| &note.text);
    let address = format!("{}/note", visit.links().dead(topic, group));
    Ok(html! {
        @if let Some(note) = &note {
            div.note {
                p { (safe(&note.text)) }
                p.soft { (person(&note.operator)) ", " (ago(note.written, visit.now())) }
            }
        }
        @if visit.may_change() {
            details {
                summary { @if note.is_some() { "Change the note" } @else { "Add a note on this cause" } }
                form.row method="post" action=(address) {
                    input type="hidden" name="reason" value=(form.reason);
                    input type="hidden" name="fingerprint" value=(form.fingerprint);
                    label { "Note, such as the number of a ticket; an empty one removes it"
                        input name="note" value=(text) maxlength="500" autocomplete="off"; }
                    button.quiet type="submit" { "Save the note" }
                }
            }
        }
    })
}

fn nothing(visit: &Visit, topic: &Topic, group: &Group, form: &FilterForm, dead: u64) -> Markup {
    html! {
        div.empty {
            @if form.is_empty() {
                p { strong { "No dead letters." } " This group handled every message, or tries it again." }
                p { a href=(visit.links().group(topic, group)) { "Go to the group" } }
            } @else {
                p { "None of " (counted(dead, "dead letter", "dead letters")) " matches this filter." }
                p { a href=(visit.links().dead(topic, group)) { "Show all" } }
            }
        }
    }
}

fn table(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    items: &[(EntryId, DeadLetterSummary)],
) -> Markup {
    let (now, may) = (visit.now(), visit.may_change());
    let address = format!("{}/sweep", visit.links().dead(topic, group));
    let rows = html! {
        div.scroll tabindex="0" role="region" aria-label="Dead letters" {
            table {
                caption { (counted(items.len() as u64, "dead letter", "dead letters")) ", the newest first" }
                thead { tr {
                    @if may { th scope="col" {
                        input type="checkbox" data-select-all hidden aria-label="Select all on this page";
                        span.hidden { "Select" }
                    } }
                    th scope="col" { "Id" } th scope="col" { "Died" } th scope="col" { "Reason" }
                    th scope="col" { "Error" } th scope="col" { "Type" } th.n scope="col" { "Attempts" }
                } }
                tbody {
                    @for (id, summary) in items { (row(visit, topic, group, *id, summary, now)) }
                }
            }
        }
    };
    html! {
        @if may {
            form method="get" action=(address) {
                (rows)
                div.row {
                    button type="submit" name="action" value="redrive" { "Redrive selected…" }
                    button.quiet type="submit" name="action" value="purge" { "Purge selected…" }
                }
            }
        } @else { (rows) }
    }
}

/// Buttons for everything that matches, also beyond this page.
fn choose_all(visit: &Visit, topic: &Topic, group: &Group, form: &FilterForm, dead: u64) -> Markup {
    let address = format!("{}/sweep", visit.links().dead(topic, group));
    let export = format!("{}/export", visit.links().dead(topic, group));
    let query = form.query();
    let what = match form.is_empty() {
        true => format!("all {}", number(dead)),
        false => "all that match".to_owned(),
    };
    html! {
        div.row {
            @if visit.may_change() {
                form.inline method="get" action=(address) {
                    input type="hidden" name="all" value="1";
                    @for (name, value) in query.fields() {
                        input type="hidden" name=(name) value=(value);
                    }
                    button type="submit" name="action" value="redrive" { "Redrive " (what) "…" }
                    button.quiet type="submit" name="action" value="purge" { "Purge " (what) "…" }
                }
            }
            @if visit.app.options.payloads {
                a.button.quiet href=(query.on(&export)) download { "Export " (what) }
            }
        }
    }
}

fn row(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    id: EntryId,
    summary: &DeadLetterSummary,
    now: Timestamp,
) -> Markup {
    html! {
        tr {
            @if visit.may_change() { td {
                input type="checkbox" name="id" value=(id) aria-label={ "Select " (id) };
            } }
            th scope="row" { a.mono href=(visit.links().letter(topic, group, id)) { (id) } }
            td { @if let Some(time) = id.time() { (ago(time, now)) } }
            td { span.badge { (summary.reason) } }
            td.wrap { (excerpt(&summary.error, 300)) }
            td.wrap {
                (excerpt(&summary.message_type, 80))
                @if let Some(tenant) = &summary.tenant { " " small { "tenant " (excerpt(tenant, 80)) } }
            }
            td.n {
                (summary.attempts)
                @if summary.redriven > 0 { " " small { "redriven " (summary.redriven) "×" } }
            }
        }
    }
}

/// Counts by cause, type and tenant; each is a link to a filter.
async fn facets(visit: &Visit, topic: &Topic, group: &Group) -> Result<Markup, Error> {
    let dead = visit.app.container.dead_letters();
    let address = visit.links().dead(topic, group);
    let causes = dead.summary(topic, group, FACETS).await?.causes;
    if causes.is_empty() {
        return Ok(html! {});
    }
    let types = dead.summary_by(topic, group, CountBy::Type, FACETS).await?;
    let tenants = dead
        .summary_by(topic, group, CountBy::Tenant, FACETS)
        .await?;
    let by_type = |name: &str| FilterForm {
        message_type: name.to_owned(),
        ..FilterForm::default()
    };
    let by_tenant = |name: &str| FilterForm {
        tenant: name.to_owned(),
        no_tenant: if name.is_empty() {
            "1".to_owned()
        } else {
            String::new()
        },
        ..FilterForm::default()
    };
    let item = |form: FilterForm, name: String, count: u64| {
        html! { li { a href=(form.query().on(&address)) { (name) } span.n { (number(count)) } } }
    };
    Ok(html! {
        div.facets {
            section {
                h2 { "Causes" }
                ul { @for one in &causes {
                    (item(FilterForm::of_cause(&one.cause), super::causes::title(&one.cause.fingerprint), one.cause.count))
                } }
            }
            section {
                h2 { "Types" }
                ul { @for one in &types {
                    @if one.name.is_empty() { li { span.soft { "(none)" } span.n { (number(one.count)) } } }
                    @else { (item(by_type(&one.name), excerpt(&one.name, 80), one.count)) }
                } }
            }
            section {
                h2 { "Tenants" }
                ul { @for one in &tenants {
                    @let name = if one.name.is_empty() { "(none)".to_owned() } else { excerpt(&one.name, 80) };
                    (item(by_tenant(&one.name), name, one.count))
                } }
            }
        }
    })
}
