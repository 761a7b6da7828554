//! The page of a sweep before it runs: what it would do, its settings, and its confirmation.

use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::sweep_form::{SweepForm, destroys};
use crate::console::page::{Page, counted, fact, facts, instant, number, safe};
use crate::console::visit::Visit;
use crate::domain::{EntryId, Group, SweepAction, Topic};
use crate::operate::dead_letters::PlannedSweep;

/// The page. `wrong` says why the form was not run.
pub(super) fn show(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    form: &SweepForm,
    planned: Option<&PlannedSweep>,
    wrong: Option<&str>,
) -> Response {
    let list = visit.links().dead(topic, group);
    let body = html! {
        @if let Some(rule) = wrong { div.note.bad role="alert" { p { (safe(rule)) } } }
        @match planned {
            Some(planned) => {
                (preview(planned, "Would be taken"))
                @if planned.is_empty() {
                    div.empty {
                        p { "Nothing would be changed." }
                        p { a href=(form.filter.query().on(&list)) { "Go back to the dead letters" } }
                    }
                } @else if visit.may_change() {
                    (confirmation(visit, topic, group, form, planned))
                } @else {
                    p.soft { "An operator can run this." }
                }
            }
            None => p { a href=(form.filter.query().on(&list)) { "Go back to the dead letters" } },
        }
    };
    let up_to = planned.and_then(|planned| planned.watermark);
    page(visit, topic, group, (form, up_to), body)
}

/// What a look that ended early found so far.
pub(super) struct SoFar<'a> {
    pub(super) planned: &'a PlannedSweep,
    pub(super) searched: u64,
    /// How many dead letters the group has.
    pub(super) dead: u64,
}

/// The page of a preview that did not reach every dead letter in its time. Nobody can confirm it,
/// because its count may be too small.
pub(super) fn show_part(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    form: &SweepForm,
    so_far: &SoFar<'_>,
) -> Response {
    let address = format!("{}/sweep", visit.links().dead(topic, group));
    let list = visit.links().dead(topic, group);
    let body = html! {
        (preview(so_far.planned, "Found so far"))
        div.note {
            p {
                "The preview searched " (number(so_far.searched)) " of "
                (counted(so_far.dead, "dead letter", "dead letters")) " in its time. "
                "Let it count all of them before you continue."
            }
            form.row method="get" action=(address) {
                @for (name, value) in form.hidden() { input type="hidden" name=(name) value=(value); }
                @if !form.to.is_empty() { input type="hidden" name="to" value=(form.to); }
                button type="submit" name="count_all" value="1" { "Count all" }
                a.button.quiet href=(form.filter.query().on(&list)) { "Cancel" }
            }
        }
    };
    page(visit, topic, group, (form, so_far.planned.watermark), body)
}

fn page(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    (form, up_to): (&SweepForm, Option<EntryId>),
    content: Markup,
) -> Response {
    let body = html! {
        (content)
        (form.command(topic.as_str(), group.as_str(), up_to).show())
    };
    let title = format!("{} dead letters of {topic}/{group}", verb(&form.action));
    let page = Page::new(visit, title, body)
        .under("Dead letters", visit.links().to("/dead"))
        .under(format!("{topic}/{group}"), visit.links().dead(topic, group));
    page.into_response()
}

fn verb(action: &str) -> &'static str {
    match action {
        "purge" => "Purge",
        "publish" => "Publish",
        _ => "Redrive",
    }
}

fn preview(planned: &PlannedSweep, taken: &str) -> Markup {
    let preview = &planned.preview;
    let at = |id: Option<EntryId>| {
        let id = id.and_then(|id| Some((id, id.time()?)));
        html! { @if let Some((id, time)) = id { (instant(time)) " " code { (id) } } @else { "–" } }
    };
    facts(html! {
        (fact(taken, html! {
            strong { (counted(preview.matching, "dead letter", "dead letters")) }
        }))
        @for (reason, count) in &preview.skipped {
            @if *count > 0 { (fact("Stays", html! { (number(*count)) " " span.soft { (reason) } })) }
        }
        @if preview.missing > 0 {
            (fact("No longer there", html! { (number(preview.missing)) }))
        }
        (fact("Selection", html! { (safe(&planned.selection.to_string())) }))
        (fact("Oldest", at(preview.oldest)))
        (fact("Newest", at(preview.newest)))
        @if let Some(id) = planned.watermark {
            (fact("Up to", html! { code { (id) }
                span.soft { ": what dies from now on stays" } }))
        }
    })
}

/// Whether the operator types the count: always where the sweep destroys, and for a filter.
pub(super) fn asks(form: &SweepForm, action: &SweepAction) -> bool {
    destroys(action) || !form.by_ids()
}

fn confirmation(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    form: &SweepForm,
    planned: &PlannedSweep,
) -> Markup {
    let count = planned.preview.matching;
    let address = format!("{}/sweep", visit.links().dead(topic, group));
    let purges = form.action == "purge";
    let asks = purges || !form.by_ids();
    let what = counted(count, "dead letter", "dead letters");
    html! {
        form method="post" action=(address) {
            @for (name, value) in form.hidden() { input type="hidden" name=(name) value=(value); }
            @if let Some(id) = planned.watermark { input type="hidden" name="up_to" value=(id); }
            h2 { "Pace" }
            div.filter {
                label { "At most a second"
                    input name="rate" value=(form.rate) inputmode="numeric" placeholder="no limit"
                        autocomplete="off"; }
                label { "Reach it after"
                    input name="ramp" value=(form.ramp) placeholder="at once, or 30s" autocomplete="off"; }
                @if !purges {
                    label { "Stop when this share dies again"
                        input name="stop" value=(form.stop) placeholder="never, or 10%; needs a rate"
                            autocomplete="off"; }
                }
                @if form.action == "publish" {
                    label { "To the topic" input name="to" value=(form.to) required autocomplete="off"; }
                }
                label { "Note for the journal"
                    input name="note" value=(form.note) maxlength="500" autocomplete="off"; }
            }
            @if purges {
                div.note.bad {
                    p { "A purge removes messages for good. "
                        a href=(export(visit, topic, group, form)) { "Export them first" } "." }
                }
            }
            div.row {
                @if asks {
                    label { "Type " strong { (number(count)) } " to confirm"
                        input name="typed" autocomplete="off" inputmode="numeric" required; }
                }
                @if purges { button.danger type="submit" { "Purge " (what) } }
                @else { button type="submit" { (verb(&form.action)) " " (what) } }
                a.button.quiet href=(form.filter.query().on(&visit.links().dead(topic, group))) { "Cancel" }
            }
        }
        @if !purges && form.action != "publish" {
            form.row method="get" action=(address) {
                @for (name, value) in form.hidden() {
                    @if name != "action" { input type="hidden" name=(name) value=(value); }
                }
                input type="hidden" name="action" value="publish";
                label { "Or publish them to another topic, and so to all its groups"
                    input name="to" placeholder="topic" required autocomplete="off"; }
                button.quiet type="submit" { "Preview" }
            }
        }
    }
}

fn export(visit: &Visit, topic: &Topic, group: &Group, form: &SweepForm) -> String {
    let address = format!("{}/export", visit.links().dead(topic, group));
    match form.by_ids() {
        true => {
            let ids = form.ids.iter();
            let query = ids.fold(crate::console::page::Query::default(), |query, id| {
                query.with("id", id.to_string())
            });
            query.on(&address)
        }
        false => form.filter.query().on(&address),
    }
}
