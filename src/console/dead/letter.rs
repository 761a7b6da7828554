//! One dead letter: facts, timeline, payload.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};

use super::filter::FilterForm;
use super::payload;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, counted, duration, fact, facts, instant, safe};
use crate::console::visit::{Visit, id_of, pair_of};
use crate::domain::{DeadLetter, EntryId, Envelope, Group, Timestamp, Topic, describe};

/// The header that carries a trace, by the standard of the W3C.
const TRACE: &str = "traceparent";

async fn find(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    id: EntryId,
) -> Result<DeadLetter, Failure> {
    let found = visit
        .app
        .container
        .dead_letters()
        .get(topic, group, &[id])
        .await?;
    let gone = "the group does not have this dead letter; it was redriven, purged or removed by \
        retention, or never existed";
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::not_found(gone))
}

pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, id_of(&id)?);
    let letter = find(&visit, &topic, &group, id).await?;
    let envelope = letter.envelope();
    let address = visit.links().letter(&topic, &group, id);
    let command = Command::new(&["dead", "show"])
        .arg(&topic)
        .arg(&group)
        .arg(id);
    let body = html! {
        div.note.bad {
            p { span.badge.bad { (letter.reason) } " after " (counted(letter.attempts.into(), "attempt", "attempts")) }
            p.mono { (safe(&letter.error)) }
        }
        @if visit.may_change() { (actions(&address, &visit.links().dead(&topic, &group), id, envelope.is_ok() && visit.app.options.payloads)) }
        (about(&visit, &letter, envelope.as_ref().ok()))
        h2 { "Timeline" }
        (timeline(&letter, envelope.as_ref().ok()))
        (payload::message(&visit, envelope.as_ref().map_err(|error| describe(error)), &letter.fields, &address))
        (command.show())
    };
    let page = Page::new(&visit, format!("Dead letter {id}"), body)
        .under("Dead letters", visit.links().to("/dead"))
        .under(
            format!("{topic}/{group}"),
            visit.links().dead(&topic, &group),
        );
    Ok(page.into_response())
}

/// The payload as a file.
pub(in crate::console) async fn payload(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, id_of(&id)?);
    let letter = find(&visit, &topic, &group, id).await?;
    let name = format!("{topic}-{group}-{id}");
    payload::download(
        &visit,
        letter.envelope().ok().as_ref(),
        &letter.fields,
        &name,
    )
}

fn actions(address: &str, list: &str, id: EntryId, editable: bool) -> Markup {
    html! {
        form.row method="get" action={ (list) "/sweep" } {
            input type="hidden" name="id" value=(id);
            button type="submit" name="action" value="redrive" { "Redrive…" }
            button.quiet type="submit" name="action" value="purge" { "Purge…" }
            @if editable { a.button.quiet href={ (address) "/edit" } { "Edit…" } }
        }
    }
}

fn about(visit: &Visit, letter: &DeadLetter, envelope: Option<&Envelope>) -> Markup {
    let list = visit.links().dead(&letter.topic, &letter.group);
    let same_cause = FilterForm {
        reason: letter.reason.to_string(),
        fingerprint: letter.fingerprint.clone(),
        ..FilterForm::default()
    };
    let text = |value: &str| html! { (safe(value)) };
    facts(html! {
        (fact("Cause", html! {
            a href=(same_cause.query().on(&list)) { (super::causes::title(&letter.fingerprint)) }
        }))
        @if !letter.message_type.is_empty() { (fact("Type", text(&letter.message_type))) }
        @if let Some(id) = letter.message_id { (fact("Message", html! { code { (id) } })) }
        @if let Some(id) = &letter.correlation {
            @let others = FilterForm { correlation: id.clone(), ..FilterForm::default() };
            (fact("Correlation", html! {
                a href=(others.query().on(&list)) title="Other dead letters of this correlation id" {
                    code { (safe(id)) }
                }
            }))
        }
        @if let Some(tenant) = &letter.tenant { (fact("Tenant", text(tenant))) }
        @if let Some(key) = envelope.and_then(Envelope::key) { (fact("Key", text(key))) }
        (fact("Handler", text(&letter.handler)))
        (fact("Consumer", text(&letter.consumer)))
        (fact("Entry", html! { code { (letter.history.origin) } }))
        @if letter.history.redriven > 0 {
            (fact("Redriven", html! {
                (counted(letter.history.redriven.into(), "time", "times"))
                @if let Some(id) = letter.history.redriven_by {
                    ", last by " a href=(visit.links().operation(&letter.topic, &letter.group, id)) { "an operation" }
                }
            }))
        }
        @if let Some(from) = &letter.imported_from { (fact("Imported from", text(from))) }
        @if let Some(url) = trace(visit, envelope) {
            (fact("Trace", html! { a href=(url) rel="noreferrer" { "Open the trace" } }))
        }
    })
}

/// The address of the message's trace, where both are known.
fn trace(visit: &Visit, envelope: Option<&Envelope>) -> Option<String> {
    let url = visit.app.options.trace_url.as_ref()?;
    let header = envelope?.headers().get(TRACE)?;
    let id = header.split('-').nth(1)?;
    let is_sound = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sound.then(|| url.replace("{trace_id}", id))
}

fn timeline(letter: &DeadLetter, envelope: Option<&Envelope>) -> Markup {
    let mut events: Vec<(Timestamp, &str, Markup)> = Vec::new();
    events.extend(envelope.map(|one| (one.created_at(), "", html! { "created" })));
    let published = letter.history.origin.time();
    events.extend(published.map(|time| (time, "", html! { "published" })));
    for attempt in &letter.history.failures {
        let text = html! {
            "attempt " (attempt.number) " on " span.mono { (safe(&attempt.consumer)) } " failed: "
            span.mono { (safe(&attempt.error)) }
        };
        events.push((attempt.at, "failed", text));
    }
    events.extend(
        letter
            .id
            .time()
            .map(|time| (time, "dead", html! { strong { "dead" } })),
    );
    let mut before: Option<i64> = None;
    let mut steps = Vec::with_capacity(events.len());
    for (time, kind, text) in events {
        // Services and the server have different clocks: a step back has no duration.
        let since = before.and_then(|before| u64::try_from(time.as_millis() - before).ok());
        before = Some(time.as_millis());
        let since = since.map(|millis| duration(std::time::Duration::from_millis(millis)));
        steps.push((time, kind, text, since));
    }
    html! {
        ol.timeline {
            @for (time, kind, text, since) in steps {
                li class=[(!kind.is_empty()).then_some(kind)] {
                    (instant(time))
                    @if let Some(since) = since { span.soft { " +" (since) } }
                    br; (text)
                }
            }
        }
    }
}
