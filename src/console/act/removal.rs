//! Removing a group.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::html;

use super::fields::{FormFields, see_other};
use super::said::{Deed, Said};
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, safe};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{Group, Topic};
use crate::operate::group_removal::PlannedRemoval;

/// Shows what would be removed. The form is there only where the store would not refuse.
pub(in crate::console) async fn preview(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let topics = visit.app.container.topics();
    let plan = topics.plan_group_removal(&topic, &group, false).await?;
    Ok(page(&visit, &topic, &group, plan.preview(), None))
}

fn page(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    planned: &PlannedRemoval,
    wrong: Option<&str>,
) -> Response {
    let address = visit.links().group(topic, group);
    let command = Command::new(&["groups", "remove"]).arg(topic).arg(group);
    let body = html! {
        @if let Some(rule) = wrong { div.note.bad role="alert" { p { (safe(rule)) } } }
        pre tabindex="0" role="region" aria-label="Plan" { (safe_lines(&planned.to_string())) }
        @if planned.refused {
            p { "A group in use stays. Stop its consumers, and handle, redrive or purge its messages first." }
        } @else if visit.may_change() {
            form method="post" action={ (address) "/remove" } {
                div.row {
                    label { "Type " strong { (group) } " to confirm"
                        input name="typed" autocomplete="off" required; }
                    button.danger type="submit" { "Remove the group" }
                    a.button.quiet href=(address) { "Cancel" }
                }
            }
        }
        (command.show())
    };
    let page = Page::new(visit, format!("Remove {group} of {topic}"), body)
        .under(topic.to_string(), visit.links().topic(topic))
        .under(group.to_string(), address.clone());
    page.into_response()
}

fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n")
}

/// Removes the group that the operator named.
pub(in crate::console) async fn run(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let topics = visit.app.container.topics();
    let plan = topics.plan_group_removal(&topic, &group, false).await?;
    let planned = plan.preview().clone();
    let confirmed = match plan.confirm(fields.get("typed")) {
        Ok(confirmed) => confirmed,
        Err(_) => {
            let rule = format!("type {group} to confirm; nothing was changed");
            let mut page = page(&visit, &topic, &group, &planned, Some(&rule));
            *page.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            return Ok(page);
        }
    };
    let removal = topics.run_group_removal(confirmed).await?;
    if !removal.removed {
        let message = "the group is in use; nothing was changed";
        return Err(Failure::new(StatusCode::CONFLICT, message));
    }
    tracing::warn!(%topic, %group, by = visit.access.name(), "group removed from the console");
    let address = visit.links().topic(&topic);
    Ok(see_other(&Said::on(Deed::Removed, 0, 0, &address)))
}
