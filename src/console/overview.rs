//! The first page: every group and topic with its figures.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::page::{
    Command, Page, counted, duration, instant, live, meter, number, safe, sparkline,
};
use super::poll::{Figures, Seen};
use super::visit::Visit;
use crate::domain::Topic;
use crate::operate::doctor::Severity;
use crate::operate::gauges::{GroupGauges, TopicGauges};

/// How many problems stand above the figures.
const PROBLEMS: usize = 3;

pub(super) async fn page(visit: Visit) -> Response {
    let region = region(&visit).await;
    let body = html! {
        (live(&visit, "/", region))
        (Command::new(&["groups"]).show())
    };
    Page::new(&visit, "Overview", body).live().into_response()
}

/// Everything that changes while somebody looks.
pub(super) async fn region(visit: &Visit) -> Markup {
    let seen = visit.app.poll.look().await;
    let report = match seen.stale {
        None => Some(visit.app.poll.examine().await),
        Some(_) => None,
    };
    let found = report.iter().flat_map(|report| &report.findings);
    let problems = found
        .clone()
        .filter(|finding| finding.severity == Severity::Problem);
    let warnings = found.filter(|finding| finding.severity == Severity::Warning);
    html! {
        (connection(&seen))
        @for finding in problems.clone().take(PROBLEMS) {
            div.note.bad {
                p { strong { "Problem: " } (safe(&finding.what)) }
                @if !finding.advice.is_empty() { p.soft { (safe(&finding.advice)) } }
            }
        }
        @let (more, warned) = (problems.count().saturating_sub(PROBLEMS), warnings.count());
        @if more + warned > 0 {
            p.soft {
                "The doctor has "
                a href=(visit.links().to("/doctor")) {
                    @if more > 0 { (counted(more as u64, "more problem", "more problems")) }
                    @if more > 0 && warned > 0 { " and " }
                    @if warned > 0 { (counted(warned as u64, "warning", "warnings")) }
                }
            }
        }
        @if let Some(figures) = &seen.figures { (tables(visit, figures)) }
    }
}

/// Says that the figures are not of now, and why.
pub(super) fn connection(seen: &Seen) -> Markup {
    let Some((age, why)) = &seen.stale else {
        return html! {};
    };
    html! {
        div.note.bad role="alert" {
            @match &seen.figures {
                Some(figures) => p {
                    strong { "Figures of " (instant(figures.at)) } ", no connection for "
                    (duration(*age)) "."
                },
                None => p { strong { "No connection to the server." } },
            }
            p.soft { (safe(why)) }
        }
    }
}

fn tables(visit: &Visit, figures: &Figures) -> Markup {
    let groups = figures.topics.iter();
    let groups = groups.flat_map(|topic| topic.groups.iter().map(|group| (&topic.topic, group)));
    let count = groups.clone().count();
    html! {
        @if figures.topics.is_empty() {
            div.empty {
                p { "This namespace has no topics yet." }
                p { "A topic appears with its first message: "
                    code { "echo '{\"cents\":1250}' | redstart publish orders --type order.placed" } }
            }
        } @else if count == 0 {
            div.empty {
                p { "No group listens yet. A group appears when a service subscribes, and gets "
                    "every message that waits." }
            }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Groups" {
                table {
                    caption { (counted(count as u64, "group", "groups")) }
                    thead { tr {
                        th scope="col" { "Group" }
                        th.n scope="col" { "Lag" }
                        th scope="col" { "15 minutes" }
                        th.n scope="col" { "In flight" }
                        th.n scope="col" { "Retries" }
                        th.n scope="col" { "Dead" }
                        th.n scope="col" { "Consumers" }
                    } }
                    tbody { @for (topic, group) in groups { (row(visit, figures, topic, group)) } }
                }
            }
        }
        @if !figures.topics.is_empty() {
            h2 { "Topics" }
            div.scroll tabindex="0" role="region" aria-label="Topics" {
                table {
                    caption { (counted(figures.topics.len() as u64, "topic", "topics")) }
                    thead { tr {
                        th scope="col" { "Topic" }
                        th.n scope="col" { "Entries" }
                        th.n scope="col" { "Backlog" }
                        th scope="col" { "Of its limit" }
                        th scope="col" { "Groups" }
                    } }
                    tbody { @for topic in &figures.topics { (topic_row(visit, topic)) } }
                }
            }
        }
    }
}

/// A count; a zero is quiet.
fn count(value: u64) -> Markup {
    html! { span.zero[value == 0] { (number(value)) } }
}

fn below(text: Option<String>) -> Markup {
    html! { @if let Some(text) = text { " " small { (text) } } }
}

fn row(visit: &Visit, figures: &Figures, topic: &Topic, group: &GroupGauges) -> Markup {
    let links = visit.links();
    let pair = (topic.clone(), group.group.clone());
    let oldest = |age: Option<Duration>| age.map(|age| format!("oldest {}", duration(age)));
    let next = group.next_retry.filter(|_| group.scheduled > 0);
    let next = next.map(|due| match u64::try_from(due) {
        Ok(due) if due > 0 => format!("next in {}", duration(Duration::from_millis(due))),
        _ => "next due now".to_owned(),
    });
    let lags: Vec<u64> = visit
        .app
        .poll
        .history(&pair)
        .iter()
        .map(|one| one.lag)
        .collect();
    let died = figures.died.get(&pair);
    let died = died.map(|count| format!("{} this hour", number(*count)));
    let waits = group.lag + group.in_flight > 0;
    html! {
        tr {
            th scope="row" {
                a href=(links.group(topic, &group.group)) { (group.group) }
                " " small { "of " a href=(links.topic(topic)) { (topic) } }
            }
            td.n { (count(group.lag)) (below(oldest(group.oldest_undelivered))) }
            td { (sparkline(&lags, 60, "lag in 15 minutes")) }
            td.n { (count(group.in_flight)) (below(oldest(group.oldest_in_flight))) }
            td.n {
                @if group.scheduled > 0 {
                    a href=(links.retries(topic, &group.group)) { (number(group.scheduled)) }
                } @else { (count(0)) }
                (below(next))
            }
            td.n {
                @if group.dead > 0 {
                    a href=(links.dead(topic, &group.group)) { (number(group.dead)) }
                } @else { (count(0)) }
                (below(died))
            }
            td.n {
                @if group.consumers == 0 && waits { span.badge.bad { "none" } }
                @else { (count(group.consumers)) }
            }
        }
    }
}

fn topic_row(visit: &Visit, topic: &TopicGauges) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(visit.links().topic(&topic.topic)) { (topic.topic) } }
            td.n { (count(topic.entries)) }
            td.n { (count(topic.backlog)) }
            td {
                @match topic.backlog_limit {
                    Some(limit) => (meter(topic.backlog, limit, "backlog of its limit")),
                    None => span.soft { "no limit" },
                }
            }
            td {
                @if topic.groups.is_empty() { span.badge.warn { "no group" } }
                @for (at, group) in topic.groups.iter().enumerate() {
                    @if at > 0 { ", " }
                    a href=(visit.links().group(&topic.topic, &group.group)) { (group.group) }
                }
            }
        }
    }
}
