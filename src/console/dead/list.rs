//! The dead letters of a group that match a filter.

use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::filter::FilterForm;
use super::search::{Found, Place, Search};
use crate::console::act::said::Said;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, ago, excerpt, number, person, safe};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{CountBy, Error, Group, Topic};

/// How many types and tenants a page counts.
const FACETS: usize = 8;

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
    let before = place.before()?;
    let command = Command::new(&["dead", "list", "--newest"])
        .arg(&topic)
        .arg(&group);
    let of = Search {
        visit: &visit,
        topic: &topic,
        group: &group,
        form: &form,
        before,
        dead: status.dead,
    };
    let (found, wrong) = match form.filter(visit.now()) {
        Ok(filter) => {
            let time = visit.app.options.search_time;
            let mut found = Found::from(before);
            of.search(&filter, &mut found, time).await?;
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
        @if let Some(found) = &found {
            @if !found.is_nothing() { (choose_all(&visit, &topic, &group, &form, status.dead)) }
            (of.region(found))
        }
        (form.on(command).option("--before", before).show())
    };
    let page = Page::new(&visit, format!("Dead letters of {topic}/{group}"), body)
        .under("Dead letters", visit.links().to("/dead"));
    Ok(page.into_response())
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
