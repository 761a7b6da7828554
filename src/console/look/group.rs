//! A group: its figures, its consumers, and when its messages died.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use crate::console::failure::Failure;
use crate::console::look::owned;
use crate::console::page::{
    Command, Page, bars, counted, duration, fact, facts, live, number, safe, sparkline,
};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{Error, Group, Topic, hour_name};
use crate::operate::in_flight::ConsumerInFlight;

/// How many deliveries in flight the page shows.
const DELIVERIES: usize = 50;

pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let region = region(&visit, &topic, &group).await?;
    let command = Command::new(&["groups", "show"]).arg(&topic).arg(&group);
    let body = html! {
        (live(&visit, &visit.path, region))
        @if visit.may_change() {
            p { a.button.quiet href={ (visit.links().group(&topic, &group)) "/remove" } { "Remove the group…" } }
        }
        (command.show())
    };
    let page = Page::new(&visit, format!("{group} of {topic}"), body)
        .live()
        .under("Overview", visit.links().overview())
        .under(topic.to_string(), visit.links().topic(&topic));
    Ok(page.into_response())
}

/// Lag, rate and latency of the last 15 minutes.
fn charts(visit: &Visit, topic: &Topic, group: &Group) -> Markup {
    let history = visit.app.poll.history(&(topic.clone(), group.clone()));
    let lags: Vec<u64> = history.iter().map(|one| one.lag).collect();
    let rates: Vec<u64> = history.iter().filter_map(|one| one.delivered).collect();
    let ages: Vec<u64> = history.iter().map(|one| one.oldest).collect();
    html! {
        @if !history.is_empty() {
            h2 { "The last 15 minutes" }
            (facts(html! {
                (fact("Lag", chart(&lags, "", "lag in 15 minutes")))
                (fact("Delivered a minute", chart(&rates, "", "delivered a minute in 15 minutes")))
                (fact("Age of the oldest undelivered", chart(&ages, " s", "seconds that the oldest has waited in 15 minutes")))
            }))
        }
    }
}

fn chart(values: &[u64], unit: &str, name: &str) -> Markup {
    html! {
        @match values.last() {
            Some(last) => { (sparkline(values, 60, name)) " " (number(*last)) (unit) },
            None => span.soft { "not known yet" },
        }
    }
}

/// Everything that changes while somebody looks.
pub(in crate::console) async fn region(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
) -> Result<Markup, Failure> {
    let topics = visit.app.container.topics();
    let status = topics.group(topic, group).await?;
    let ages = topics.ages(topic).await?;
    let ages = ages.into_iter().find(|ages| ages.group == *group);
    let consumers = topics.in_flight(topic, group).await?;
    let partitions = match status.owned {
        true => topics.owned_partitions(topic, group).await?,
        false => Vec::new(),
    };
    let hours = hours(visit, topic, group).await?;
    let links = visit.links();
    Ok(html! {
        (facts(html! {
            (fact("Kind", html! { @if status.owned { "owned" } @else { "shared" } }))
            (fact("Lag", html! { (number(status.lag)) " undelivered"
                @if let Some(age) = ages.as_ref().and_then(|ages| ages.oldest_undelivered) {
                    span.soft { ", the oldest for " (duration(age)) }
                }
            }))
            (fact("In flight", html! { (number(status.in_flight))
                @if let Some(age) = ages.as_ref().and_then(|ages| ages.oldest_in_flight) {
                    span.soft { ", the longest for " (duration(age)) }
                }
            }))
            (fact("Scheduled retries", html! {
                a href=(links.retries(topic, group)) { (number(status.scheduled)) }
            }))
            (fact("Dead letters", html! {
                a href=(links.dead(topic, group)) { (number(status.dead)) }
            }))
        }))
        (charts(visit, topic, group))
        h2 { "Consumers" }
        (consumer_table(&consumers))
        (deliveries(&consumers))
        (owned::tables(&partitions, visit.now()))
        @if status.dead > 0 {
            h2 { "Dead letters by hour of death" }
            (bars(&hours, "dead letters of the last 24 hours"))
        }
    })
}

fn consumer_table(consumers: &[ConsumerInFlight]) -> Markup {
    if consumers.is_empty() {
        return html! {
            div.empty {
                p { "No consumer has joined this group. Messages wait until a service subscribes." }
            }
        };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Consumers" {
            table {
                caption { (counted(consumers.len() as u64, "consumer", "consumers")) }
                thead { tr {
                    th scope="col" { "Consumer" } th scope="col" { "State" }
                    th.n scope="col" { "In flight" } th.n scope="col" { "Longest held" }
                    th.n scope="col" { "Quiet for" }
                } }
                tbody {
                    @for one in consumers {
                        tr {
                            th.wrap scope="row" { span.mono { (safe(&one.consumer)) } }
                            td {
                                @if one.live { span.badge.good { "living" } }
                                @else { span.badge { "gone" } }
                            }
                            td.n { (number(one.in_flight)) }
                            td.n { @if let Some(age) = one.longest() { (duration(age)) } }
                            td.n { @if let Some(age) = one.idle_for { (duration(age)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The deliveries that consumers hold, the longest held first.
fn deliveries(consumers: &[ConsumerInFlight]) -> Markup {
    let all = consumers.iter();
    let all = all.flat_map(|one| {
        one.deliveries
            .iter()
            .map(|delivery| (&one.consumer, delivery))
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, delivery)| std::cmp::Reverse(delivery.held_for));
    if all.is_empty() {
        return html! {};
    }
    let rest = all.len().saturating_sub(DELIVERIES) as u64;
    html! {
        h2 { "In flight" }
        div.scroll tabindex="0" role="region" aria-label="Deliveries in flight" {
            table {
                caption {
                    "Deliveries that are not settled, the longest held first"
                    @if rest > 0 { "; " (counted(rest, "more is", "more are")) " not shown" }
                }
                thead { tr {
                    th scope="col" { "Delivery" } th scope="col" { "Consumer" }
                    th.n scope="col" { "Held for" } th.n scope="col" { "Lease" }
                } }
                tbody {
                    @for (consumer, delivery) in all.iter().take(DELIVERIES) {
                        tr {
                            th scope="row" { span.mono { (delivery.id) } }
                            td.wrap { span.mono { (safe(consumer)) } }
                            td.n { (duration(delivery.held_for)) }
                            td.n {
                                @match delivery.lease_age {
                                    Some(age) => { "extended " (duration(age)) " ago" },
                                    None => "given back",
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The dead letters of the last 24 hours by hour, the oldest first, with hours of none.
pub(in crate::console) async fn hours(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
) -> Result<Vec<(String, u64)>, Error> {
    let dead = visit.app.container.dead_letters();
    let now = u64::try_from(visit.now().as_millis()).unwrap_or(0) / 3_600_000;
    let hours: Vec<u64> = (now.saturating_sub(23)..=now).collect();
    let counts = dead.hours(topic, group, &hours).await?;
    let names = hours.into_iter().map(hour_name);
    Ok(names.zip(counts).collect())
}
