//! Publishing a message from its topic's page.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::value::RawValue;

use super::fields::{FormFields, see_other};
use super::said::{Deed, Said};
use crate::console::failure::{Failure, doubt, is_certain};
use crate::console::page::{Command, Page, safe};
use crate::console::visit::{Visit, topic_of};
use crate::domain::{Envelope, Topic};

/// The form. After a failure it has the values that the operator typed.
pub(in crate::console) fn form(visit: &Visit, topic: &Topic, fields: &FormFields) -> Markup {
    let address = format!("{}/publish", visit.links().topic(topic));
    let text = |label: &str, name: &str, required: bool| {
        html! { label { (label)
        input name=(name) value=(fields.get(name)) required[required] autocomplete="off"; } }
    };
    html! {
        form method="post" action=(address) {
            div.filter {
                (text("Type", "type", true))
                (text("Key", "key", false))
                (text("Tenant", "tenant", false))
                (text("Correlation id", "correlation", false))
            }
            label { "Payload, JSON" textarea name="payload" required spellcheck="false" { (fields.get("payload")) } }
            label { "Headers, one a line: name=value"
                textarea.short name="headers" spellcheck="false" { (fields.get("headers")) } }
            div.row { button type="submit" { "Publish to " (topic) } }
        }
        (command(topic, fields).show())
    }
}

/// The command that publishes what the form has. Capitals stand for an empty field.
fn command(topic: &Topic, fields: &FormFields) -> Command {
    let value = |name: &str| match fields.get(name).trim() {
        "" => None,
        text => Some(text.to_owned()),
    };
    let kind = value("type").unwrap_or_else(|| "TYPE".to_owned());
    // The tool reads a message from each line. In JSON, line breaks separate only.
    let payload = value("payload").unwrap_or_else(|| "JSON".to_owned());
    let command = Command::new(&["publish"])
        .arg(topic)
        .option("--type", Some(kind))
        .option("--key", value("key"))
        .option("--tenant", value("tenant"))
        .option("--correlation", value("correlation"))
        .reads(payload.replace(['\n', '\r'], " "));
    let headers = fields.get("headers").lines().map(str::trim);
    let headers = headers.filter(|line| line.contains('='));
    headers.fold(command, |command, line| {
        command.option("--header", Some(line))
    })
}

/// Publishes the message of the form.
pub(in crate::console) async fn run(
    visit: Visit,
    Path(topic): Path<String>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let topic = topic_of(&topic)?;
    // A misspelt name must not create a topic.
    visit.app.container.topics().groups(&topic).await?;
    let published = match envelope(&fields) {
        Ok(envelope) => {
            let published = visit.app.container.bus().publish(&topic, &envelope).await;
            published.map_err(|error| (crate::domain::describe(&error), is_certain(&error)))
        }
        Err(rule) => Err((rule, true)),
    };
    if let Err((rule, certain)) = published {
        let (status, end) = match certain {
            true => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Nothing was published.".to_owned(),
            ),
            false => (StatusCode::SERVICE_UNAVAILABLE, doubt("published")),
        };
        let body = html! {
            div.note.bad role="alert" { p { (safe(&rule)) } p { (end) } }
            (form(&visit, &topic, &fields))
        };
        let page = Page::new(&visit, format!("Publish to {topic}"), body)
            .under(topic.to_string(), visit.links().topic(&topic));
        let mut page = page.into_response();
        *page.status_mut() = status;
        return Ok(page);
    }
    tracing::info!(%topic, by = visit.access.name(), "message published from the console");
    let address = visit.links().topic(&topic);
    Ok(see_other(&Said::on(Deed::Published, 1, 0, &address)))
}

fn envelope(fields: &FormFields) -> Result<Envelope, String> {
    let payload = fields.get("payload").trim().to_owned();
    let payload = RawValue::from_string(payload).map_err(|error| format!("payload: {error}"))?;
    let described = |error: crate::domain::Error| crate::domain::describe(&error);
    let mut envelope = Envelope::new(fields.get("type").trim(), &payload).map_err(described)?;
    for (name, set) in [
        (
            "key",
            Envelope::with_key as fn(Envelope, String) -> Envelope,
        ),
        ("tenant", Envelope::with_tenant),
        ("correlation", Envelope::with_correlation),
    ] {
        let value = fields.get(name).trim();
        if !value.is_empty() {
            envelope = set(envelope, value.to_owned());
        }
    }
    for line in fields
        .get("headers")
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        match line.trim().split_once('=') {
            Some((name, value)) if !name.is_empty() => envelope.set_header(name, value),
            _ => return Err("headers: each line must be name=value".to_owned()),
        }
    }
    Ok(envelope)
}
