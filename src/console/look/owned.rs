//! The partitions of an owned group, and the failed messages that hold back their keys.

use std::time::Duration;

use maud::{Markup, html};

use crate::console::page::{ago, counted, duration, excerpt, number, safe};
use crate::domain::Timestamp;
use crate::operate::owned::OwnedPartition;

/// How many failed messages the page shows.
const MESSAGES: usize = 50;
/// How many characters of a key and of an error it shows.
const TEXT: usize = 120;

/// Nothing for a shared group.
pub(super) fn tables(partitions: &[OwnedPartition], now: Timestamp) -> Markup {
    if partitions.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Partitions" }
        div.scroll tabindex="0" role="region" aria-label="Partitions" {
            table {
                caption { (counted(partitions.len() as u64, "partition", "partitions")) ", each with one owner" }
                thead { tr {
                    th.n scope="col" { "Partition" } th scope="col" { "Owner" } th.n scope="col" { "Token" }
                    th scope="col" { "Settled up to" } th scope="col" { "Begun up to" }
                    th.n scope="col" { "Keys held back" } th.n scope="col" { "Next try" }
                } }
                tbody {
                    @for one in partitions {
                        tr {
                            th.n scope="row" { (one.partition) }
                            td.wrap {
                                @match &one.owner {
                                    Some(owner) => span.mono { (safe(owner.as_str())) },
                                    None => span.badge.bad { "no owner" },
                                }
                            }
                            td.n { @if let Some(token) = one.token { (number(token)) } }
                            td { span.mono { (one.low) } }
                            td { span.mono { (one.high) } }
                            td.n { (number(one.held_back)) }
                            td.n { @if let Some(millis) = one.next_try { (next(millis)) } }
                        }
                    }
                }
            }
        }
        (messages(partitions, now))
    }
}

fn messages(partitions: &[OwnedPartition], now: Timestamp) -> Markup {
    let listed = partitions.iter().flat_map(|one| &one.oldest);
    let listed: Vec<_> = listed.take(MESSAGES).collect();
    let all: u64 = partitions.iter().map(|one| one.held_back).sum();
    let rest = all.saturating_sub(listed.len() as u64);
    if all == 0 {
        return html! {};
    }
    html! {
        h2 { "Keys held back" }
        div.scroll tabindex="0" role="region" aria-label="Keys held back" {
            table {
                caption {
                    "Failed messages that the later ones of their keys wait for"
                    @if rest > 0 { "; " (counted(rest, "more is", "more are")) " not shown" }
                }
                thead { tr {
                    th scope="col" { "Key" } th scope="col" { "Message" }
                    th.n scope="col" { "Failed" } th scope="col" { "Since" }
                    th.n scope="col" { "Next try" } th scope="col" { "Error" }
                } }
                tbody {
                    @for one in listed {
                        tr {
                            th.wrap scope="row" {
                                @match &one.key {
                                    Some(key) => (excerpt(key, TEXT)),
                                    None => span.soft { "no key" },
                                }
                            }
                            td { span.mono { (one.id) } }
                            td.n { (number(one.attempts.into())) }
                            td { @if let Some(since) = one.since { (ago(since, now)) } }
                            td.n { (next(one.next_try)) }
                            td.wrap {
                                @match &one.error {
                                    Some(error) => (excerpt(error, TEXT)),
                                    None => span.soft { "snoozed" },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// When a message is tried again.
fn next(millis: i64) -> Markup {
    html! {
        @if millis > 0 { "in " (duration(Duration::from_millis(millis.unsigned_abs()))) }
        @else { "now" }
    }
}
