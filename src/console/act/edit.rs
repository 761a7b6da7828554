//! Editing one dead letter and sending it back to its group.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::fields::{FormFields, see_other};
use super::said::{Deed, Said};
use crate::console::failure::{Failure, doubt, is_certain};
use crate::console::page::{Command, Page, safe};
use crate::console::visit::{Visit, id_of, pair_of};
use crate::domain::{DeadLetter, EntryId, Error, ErrorKind, Group, Topic, describe};
use crate::operate::dead_letters::EnvelopeEdit;
use crate::operate::views::{envelope_json, pretty_json};

/// The form with the message as it is, beside the message to send.
pub(in crate::console) async fn page(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, id_of(&id)?);
    let letter = find(&visit, &topic, &group, id).await?;
    let now = text(&letter)?;
    Ok(show(&visit, &letter, &now, &now, None))
}

async fn find(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    id: EntryId,
) -> Result<DeadLetter, Failure> {
    if !visit.app.options.payloads {
        return Err(Failure::not_found("this console hides payloads"));
    }
    let found = visit
        .app
        .container
        .dead_letters()
        .get(topic, group, &[id])
        .await?;
    let gone = || Failure::not_found("the group no longer has this dead letter");
    found.into_iter().next().ok_or_else(gone)
}

fn text(letter: &DeadLetter) -> Result<String, Failure> {
    Ok(pretty_json(&envelope_json(&letter.envelope()?)?))
}

fn show(
    visit: &Visit,
    letter: &DeadLetter,
    now: &str,
    new: &str,
    wrong: Option<&Error>,
) -> Response {
    let (topic, group, id) = (&letter.topic, &letter.group, letter.id);
    let address = visit.links().letter(topic, group, id);
    let body = html! {
        @if let Some(error) = wrong {
            div.note.bad role="alert" { p { (safe(&describe(error))) } p {
                @if changed_nothing(error) { "Nothing was changed." } @else { (doubt("sent")) }
            } }
        }
        form method="post" action={ (address) "/edit" } {
            div.panes {
                label { "As it died" textarea rows="22" readonly spellcheck="false" { (visible(now)) } }
                label { "To send" textarea name="envelope" rows="22" required spellcheck="false" { (visible(new)) } }
            }
            p.soft { "The edited message goes back to this group with a new id and names the original. The "
                "journal has your name." }
            div.row {
                button type="submit" { "Send the edited message" }
                a.button.quiet href=(address) { "Cancel" }
            }
        }
        (Command::new(&["dead", "edit"]).arg(topic).arg(group).arg(id).show())
    };
    let page = Page::new(visit, format!("Edit dead letter {id}"), body)
        .under("Dead letters", visit.links().to("/dead"))
        .under(format!("{topic}/{group}"), visit.links().dead(topic, group))
        .under(id.to_string(), address.clone());
    page.into_response()
}

/// Whether an edit that failed changed nothing for certain. Of its steps, any may have met an error of
/// the connection.
fn changed_nothing(error: &Error) -> bool {
    is_certain(error) && error.kind() != ErrorKind::Unavailable
}

/// JSON with invisible characters as its own escapes: the text has the same value.
fn visible(text: &str) -> Markup {
    let lines = crate::operate::escape::json_lines(text);
    html! { (lines.join("\n")) }
}

/// Sends the edited message.
pub(in crate::console) async fn run(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, id_of(&id)?);
    let letter = find(&visit, &topic, &group, id).await?;
    let new = fields.get("envelope");
    let edited = EnvelopeEdit::whole(new).and_then(|edit| edit.apply(&letter));
    let edited = match edited {
        Ok(envelope) => {
            let dead = visit.app.container.dead_letters();
            dead.edit(&topic, &group, id, envelope, visit.access.name())
                .await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = edited {
        let mut page = show(&visit, &letter, &text(&letter)?, new, Some(&error));
        *page.status_mut() = match changed_nothing(&error) {
            true => StatusCode::UNPROCESSABLE_ENTITY,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        return Ok(page);
    }
    let list = visit.links().dead(&topic, &group);
    Ok(see_other(&Said::on(Deed::Edited, 1, 0, &list)))
}
