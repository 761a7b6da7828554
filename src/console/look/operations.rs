//! The journal: what operators did to groups and their dead letters.

use axum::extract::{Path, Query as Fields};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use uuid::Uuid;

use crate::console::act::running::RunningNow;
use crate::console::act::said::Said;
use crate::console::dead::filter::FilterForm;
use crate::console::failure::Failure;
use crate::console::page::{
    Command, Page, ago, counted, excerpt, fact, facts, instant, live, number, person, safe,
};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{Error, Group, Topic};
use crate::operate::dead_letters::JournalEntry;

/// How many operations the list shows.
const MOST: usize = 200;

/// An operation with the group that it changed.
pub(in crate::console) struct Listed {
    pub(in crate::console) topic: Topic,
    pub(in crate::console) group: Group,
    pub(in crate::console) entry: JournalEntry,
}

/// The operations of all groups, the newest first.
pub(in crate::console) async fn all(visit: &Visit) -> Result<Vec<Listed>, Error> {
    let dead = visit.app.container.dead_letters();
    let mut all = Vec::new();
    for status in visit.app.container.topics().list().await? {
        for group in status.groups {
            for entry in dead.journal(&status.topic, &group.group).await? {
                all.push(Listed {
                    topic: status.topic.clone(),
                    group: group.group.clone(),
                    entry,
                });
            }
        }
    }
    all.sort_by_key(|one| std::cmp::Reverse((one.entry.begun, one.entry.id)));
    Ok(all)
}

pub(in crate::console) async fn page(visit: Visit) -> Result<Response, Failure> {
    let region = list(&visit).await?;
    let body = html! {
        (live(&visit, "/operations", region))
        (Command::new(&["dead", "journal"]).show())
    };
    Ok(Page::new(&visit, "Operations", body).live().into_response())
}

/// Everything that changes while somebody looks.
pub(in crate::console) async fn list(visit: &Visit) -> Result<Markup, Failure> {
    let all = all(visit).await?;
    let shown = &all[..all.len().min(MOST)];
    Ok(html! {
        @if shown.is_empty() {
            div.empty {
                p { "No operations yet. The journal of a group keeps every redrive, purge and reset, with "
                    "its operator." }
                p { a href=(visit.links().to("/dead")) { "Go to the dead letters" } }
            }
        } @else {
            (table(visit, shown))
        }
    })
}

fn table(visit: &Visit, shown: &[Listed]) -> Markup {
    let now = visit.now();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Operations" {
            table {
                caption { (counted(shown.len() as u64, "operation", "operations")) ", the newest first" }
                thead { tr {
                    th scope="col" { "Begun" } th scope="col" { "Operation" } th scope="col" { "Group" }
                    th scope="col" { "Selection" } th.n scope="col" { "Taken" } th scope="col" { "State" }
                    th scope="col" { "By" }
                } }
                tbody {
                    @for one in shown {
                        tr {
                            td { (ago(one.entry.begun, now)) }
                            th scope="row" {
                                a href=(visit.links().operation(&one.topic, &one.group, one.entry.id)) {
                                    (one.entry.action)
                                }
                            }
                            td { (one.topic) "/" (one.group) }
                            td.wrap {
                                (selection(&one.entry))
                                @if !one.entry.note.is_empty() { p.soft { (excerpt(&one.entry.note, 200)) } }
                            }
                            td.n { (number(one.entry.taken)) }
                            td { (state(&one.entry, visit.app.sweeps.get(one.entry.id).is_some())) }
                            td.wrap { (person(&one.entry.operator)) }
                        }
                    }
                }
            }
        }
    }
}

fn selection(entry: &JournalEntry) -> String {
    let text = match (&entry.selection, &entry.reset_to) {
        (_, Some(place)) => format!("to {place}"),
        (Some(selection), None) => selection.to_string(),
        // A change of settings selects nothing: its note says what it changed.
        (None, None) if entry.action == "settings" => String::new(),
        (None, None) => "too many ids to keep".to_owned(),
    };
    excerpt(&text, 200)
}

fn state(entry: &JournalEntry, runs_here: bool) -> Markup {
    let result = entry.result.as_deref();
    html! {
        @match result {
            None if runs_here => span.badge.good { "running" },
            None => span.badge.warn { "not ended" },
            Some(text) if text.starts_with("stopped") => span.badge.warn { "stopped" },
            Some(_) => span.badge.good { "done" },
        }
    }
}

pub(in crate::console) async fn one(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
    Fields(said): Fields<Said>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let id: Uuid = id
        .parse()
        .map_err(|_| Failure::not_found("the id of an operation is a UUID"))?;
    let region = region(&visit, &topic, &group, id).await?;
    let command = Command::new(&["dead", "journal"]).arg(&topic).arg(&group);
    let body = html! {
        (said.show())
        (live(&visit, &visit.path, region))
        (command.show())
    };
    let page = Page::new(&visit, format!("Operation on {topic}/{group}"), body)
        .live()
        .under("Operations", visit.links().to("/operations"));
    Ok(page.into_response())
}

/// Everything that changes while somebody looks.
pub(in crate::console) async fn region(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    id: Uuid,
) -> Result<Markup, Failure> {
    let entries = visit
        .app
        .container
        .dead_letters()
        .journal(topic, group)
        .await?;
    let entry = entries.into_iter().find(|entry| entry.id == id);
    let entry =
        entry.ok_or_else(|| Failure::not_found("the journal does not have this operation"))?;
    let running = visit.app.sweeps.get(id);
    Ok(html! {
        (progress(&entry, running.as_ref()))
        (buttons(visit, topic, group, &entry, running.is_some()))
        @if let Some(why) = visit.app.sweeps.failure(id) {
            div.note.bad role="alert" { p { "The operation failed here: " (safe(&why)) }
                p.soft { "The journal keeps what it moved. Resume continues it." } }
        }
        (about(visit, topic, group, &entry, running.is_some()))
    })
}

/// How far a sweep is. Only the console that runs it knows how many it will take.
fn progress(entry: &JournalEntry, running: Option<&RunningNow>) -> Markup {
    let Some(running) = running else {
        return html! {};
    };
    let now = running.progress;
    let taken = now.taken.max(entry.taken);
    html! {
        div.note.good {
            p { strong { (number(taken)) @if let Some(total) = running.total { " of " (number(total)) } }
                " taken"
                @if now.skipped > 0 { ", " (number(now.skipped)) " skipped" }
                @if now.missing > 0 { ", " (number(now.missing)) " missing" }
                @if now.died_again > 0 { ", " (number(now.died_again)) " died again" }
            }
            @if let Some(total) = running.total {
                progress max=(total) value=(taken.min(total)) aria-label="taken" { (number(taken)) }
            }
        }
    }
}

/// Stop, or Resume.
fn buttons(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    entry: &JournalEntry,
    runs_here: bool,
) -> Markup {
    if entry.result.is_some() || !visit.may_change() {
        return html! {};
    }
    let address = visit.links().operation(topic, group, entry.id);
    let resumable = matches!(entry.action.as_str(), "redrive" | "purge" | "publish");
    html! {
        @if runs_here {
            form.row method="post" action={ (address) "/stop" } {
                button.danger type="submit" { "Stop" }
            }
        } @else if resumable && entry.selection.is_some() {
            div.note.warn {
                p { "This operation was stopped or cut off, or it runs in another process. It took "
                    (number(entry.taken)) " so far." }
                form.row method="post" action={ (address) "/resume" } {
                    button type="submit" { "Resume" }
                }
            }
        } @else if resumable {
            div.note.warn {
                p { "This operation has not ended. Its selection is too long for the journal, so that it cannot "
                    "be resumed: begin a new one." }
            }
        }
    }
}

fn about(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    entry: &JournalEntry,
    runs_here: bool,
) -> Markup {
    facts(html! {
        (fact("Operation", html! { (entry.action) " " code { (entry.id) } }))
        (fact("State", state(entry, runs_here)))
        (fact("Taken", html! { (number(entry.taken)) }))
        (fact("By", person(&entry.operator)))
        (fact("Begun", instant(entry.begun)))
        (fact("Group", html! { a href=(visit.links().group(topic, group)) { (topic) "/" (group) } }))
        @let selection = selection(entry);
        @if !selection.is_empty() { (fact("Selection", html! { (selection) })) }
        @if let Some(until) = entry.until {
            (fact("Up to", html! { code { (until) }
                span.soft { ", the newest dead letter when it began" } }))
        }
        @if let Some(to) = &entry.to { (fact("Published to", html! { (to) })) }
        @if !entry.note.is_empty() { (fact("Note", html! { (safe(&entry.note)) })) }
        @if entry.action == "redrive" {
            @let again = FilterForm::died_again(entry.id);
            (fact("Died again", html! {
                a href=(again.query().on(&visit.links().dead(topic, group))) { "Show those of this operation" }
            }))
        }
        @if let Some(result) = &entry.result { (fact("Result", html! { (safe(result)) })) }
    })
}
