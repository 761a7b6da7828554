//! Dead letters as the rows of a table.

use maud::{Markup, html};

use crate::console::page::{ago, counted, excerpt};
use crate::console::visit::Visit;
use crate::domain::{DeadLetterSummary, EntryId, Group, Timestamp, Topic};

pub(super) fn table(
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
