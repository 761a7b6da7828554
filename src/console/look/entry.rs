//! One entry of a topic in full.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use maud::html;

use crate::console::dead::payload;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, fact, facts, instant, safe};
use crate::console::visit::{Visit, id_of, topic_of};
use crate::domain::Topic;
use crate::operate::topics::Entry;

async fn find(visit: &Visit, topic: &str, id: &str) -> Result<(Topic, Entry), Failure> {
    let (topic, id) = (topic_of(topic)?, id_of(id)?);
    let topics = visit.app.container.topics();
    let (partition, before) = (id.partition(), id.before());
    let found = topics
        .entries_of_partition(&topic, partition, before, 1)
        .await?;
    let entry = found.into_iter().find(|entry| entry.id == id);
    let gone = || Failure::not_found("the topic does not have this entry, or no longer has it");
    Ok((topic, entry.ok_or_else(gone)?))
}

pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (topic, entry) = find(&visit, &topic, &id).await?;
    let address = visit.links().entry(&topic, entry.id);
    let command = Command::new(&["tail"])
        .arg(&topic)
        .option("--from", Some(entry.id))
        .option("--max", Some(1));
    let body = html! {
        (facts(html! {
            @if let Some(time) = entry.id.time() { (fact("Published", instant(time))) }
            @if let Ok(envelope) = &entry.envelope {
                (fact("Type", html! { (safe(envelope.message_type())) }))
                (fact("Message", html! { code { (envelope.id()) } }))
                (fact("Created", instant(envelope.created_at())))
                @if let Some(id) = envelope.correlation() {
                    (fact("Correlation", html! { code { (safe(id)) } }))
                }
                @if let Some(tenant) = envelope.tenant() { (fact("Tenant", html! { (safe(tenant)) })) }
                @if let Some(key) = envelope.key() { (fact("Key", html! { (safe(key)) })) }
            }
        }))
        (payload::message(&visit, entry.envelope.as_ref().map_err(ToString::to_string), &entry.fields, &address))
        (command.show())
    };
    let page = Page::new(&visit, format!("Entry {}", entry.id), body)
        .under("Overview", visit.links().overview())
        .under(topic.to_string(), visit.links().topic(&topic));
    Ok(page.into_response())
}

/// The payload as a file.
pub(in crate::console) async fn payload(
    visit: Visit,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (topic, entry) = find(&visit, &topic, &id).await?;
    payload::download(
        &visit,
        entry.envelope.as_ref().ok(),
        &entry.fields,
        &format!("{topic}-{}", entry.id),
    )
}
