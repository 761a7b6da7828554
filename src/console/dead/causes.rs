//! The causes of all groups, the most frequent first.

use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::filter::FilterForm;
use crate::console::failure::Failure;
use crate::console::look::group::hours;
use crate::console::page::{Command, Page, ago, bars, counted, excerpt, live, number, person};
use crate::console::visit::Visit;
use crate::domain::{Group, Topic};
use crate::operate::dead_letters::CauseSummary;

/// How many causes of a group the page shows.
const CAUSES: usize = 20;

/// How many groups have a picture of their hours.
const PICTURES: usize = 6;

pub(in crate::console) async fn page(visit: Visit) -> Result<Response, Failure> {
    let region = region(&visit).await?;
    let body = html! {
        (live(&visit, "/dead", region))
        (Command::new(&["dead", "summary"]).show())
    };
    Ok(Page::new(&visit, "Dead letters", body)
        .live()
        .into_response())
}

/// Everything that changes while somebody looks.
pub(in crate::console) async fn region(visit: &Visit) -> Result<Markup, Failure> {
    let dead = visit.app.container.dead_letters();
    let (mut causes, mut groups, mut rarer) = (Vec::new(), Vec::new(), 0);
    for status in visit.app.container.topics().list().await? {
        for group in status.groups.iter().filter(|group| group.dead > 0) {
            let summary = dead.summary(&status.topic, &group.group, CAUSES).await?;
            groups.push((status.topic.clone(), group.group.clone(), summary.count));
            rarer += summary.rarer as u64;
            causes.extend(summary.causes);
        }
    }
    causes.sort_by_key(|one: &CauseSummary| std::cmp::Reverse(one.cause.count));
    groups.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    if causes.is_empty() {
        return Ok(html! {
            div.empty {
                p { strong { "No dead letters." } " Every message was handled, or waits for its next attempt." }
                p { a href=(visit.links().overview()) { "Go to the overview" } }
            }
        });
    }
    let mut pictures = Vec::new();
    for (topic, group, count) in groups.iter().take(PICTURES) {
        pictures.push((topic, group, *count, hours(visit, topic, group).await?));
    }
    Ok(html! {
        div.facets {
            @for (topic, group, count, hours) in pictures {
                (picture(visit, topic, group, count, &hours))
            }
        }
        (table(visit, &causes, rarer))
    })
}

fn picture(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    count: u64,
    hours: &[(String, u64)],
) -> Markup {
    html! {
        div {
            a href=(visit.links().dead(topic, group)) { (topic) "/" (group) }
            " " span.soft { (number(count)) }
            div { (bars(hours, &format!("dead letters of {topic}/{group} in the last 24 hours"))) }
        }
    }
}

fn table(visit: &Visit, causes: &[CauseSummary], rarer: u64) -> Markup {
    let now = visit.now();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Causes" {
            table {
                caption {
                    (counted(causes.len() as u64, "cause", "causes")) ", the most frequent first"
                    @if rarer > 0 { "; " (counted(rarer, "rarer cause is", "rarer causes are")) " not shown" }
                }
                thead { tr {
                    th.n scope="col" { "Count" } th scope="col" { "Cause" } th scope="col" { "Reason" }
                    th scope="col" { "Group" } th scope="col" { "First" } th scope="col" { "Last" }
                } }
                tbody {
                    @for one in causes {
                        @let form = FilterForm::of_cause(&one.cause);
                        @let list = visit.links().dead(&one.topic, &one.group);
                        tr {
                            td.n { (number(one.cause.count)) }
                            th.wrap scope="row" {
                                a href=(form.query().on(&list)) { (title(&one.cause.fingerprint)) }
                                @if let Some(note) = &one.note {
                                    p.soft { (excerpt(&note.text, 200)) " – " (person(&note.operator)) }
                                }
                            }
                            td { span.badge { (one.cause.reason) } }
                            td { a href=(list) { (one.topic) "/" (one.group) } }
                            td { @if let Some(time) = one.first_died { (ago(time, now)) } }
                            td { @if let Some(time) = one.last_died { (ago(time, now)) } }
                        }
                    }
                }
            }
        }
    }
}

/// A folded error; a cause without one still needs a name to click.
pub(super) fn title(fingerprint: &str) -> String {
    match fingerprint {
        "" => "(no error text)".to_owned(),
        text => excerpt(text, 200),
    }
}
