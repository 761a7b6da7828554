//! Running scheduled retries now, and cancelling them.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::html;
use sha2::{Digest as _, Sha256};

use super::fields::{FormFields, see_other, typed};
use super::said::{Deed, Said};
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, counted, number, safe};
use crate::console::visit::{Visit, pair_of};
use crate::domain::{Group, Topic};
use crate::operate::hex;
use crate::operate::plan::Plan;
use crate::operate::retry_plan::{PlannedRetries, RetryAction, RetrySelection};
use crate::store::DeliveryId;

/// What a form asks for.
struct Asked {
    action: RetryAction,
    ids: Vec<DeliveryId>,
    all: bool,
}

impl Asked {
    fn read(fields: &FormFields) -> Result<Self, Failure> {
        let ids = fields.all("id").map(|id| id.parse());
        let ids = ids.collect::<Result<Vec<DeliveryId>, _>>();
        let asked = Self {
            action: match fields.get("action") {
                "cancel" => RetryAction::Cancel,
                "run-now" => RetryAction::RunNow,
                _ => return Err(Failure::invalid("the action must be run-now or cancel")),
            },
            ids: ids.map_err(|_| Failure::invalid("an id of the form is not one of a retry"))?,
            all: !fields.get("all").is_empty(),
        };
        if asked.ids.is_empty() && !asked.all {
            return Err(Failure::invalid(
                "select retries first, or use the button for all",
            ));
        }
        Ok(asked)
    }

    fn selection(&self) -> RetrySelection {
        match self.all {
            true => RetrySelection::All,
            false => RetrySelection::Ids(self.ids.clone()),
        }
    }
}

/// What a form hands on of a preview, so that its POST takes the same retries.
fn digest(ids: &[DeliveryId]) -> String {
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort_unstable();
    hex::word(&Sha256::digest(ids.join("\n")))
}

/// Shows what would be run or cancelled.
pub(in crate::console) async fn preview(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let asked = Asked::read(&fields)?;
    let retries = visit.app.container.retries();
    let plan = retries
        .plan(&topic, &group, asked.action, asked.selection())
        .await?;
    Ok(confirmation(&visit, &topic, &group, &asked, &plan, None))
}

fn confirmation(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    asked: &Asked,
    plan: &Plan<PlannedRetries>,
    wrong: Option<&str>,
) -> Response {
    let list = visit.links().retries(topic, group);
    let count = plan.preview().matching;
    let what = counted(count, "retry", "retries");
    let cancels = asked.action == RetryAction::Cancel;
    let (verb, code) = match cancels {
        true => ("Cancel", "cancel"),
        false => ("Run now", "run-now"),
    };
    let command = Command::new(&["retries", code]).arg(topic).arg(group);
    let command = match asked.all {
        true => command.flag("--all", true),
        false => asked
            .ids
            .iter()
            .fold(command, |command, id| command.arg(id)),
    };
    let body = html! {
        @if let Some(rule) = wrong { div.note.bad role="alert" { p { (safe(rule)) } } }
        p { strong { (what) }
            @if cancels { " would be removed for good." } @else { " would be tried at once." } }
        @if plan.preview().missing > 0 {
            p.soft { (counted(plan.preview().missing, "selected id is", "selected ids are")) " no longer scheduled." }
        }
        @if count > 0 && visit.may_change() {
            form method="post" action=(list) {
                input type="hidden" name="action" value=(code);
                @if asked.all { input type="hidden" name="all" value="1"; }
                @else { @for id in &asked.ids { input type="hidden" name="id" value=(id); } }
                input type="hidden" name="shown" value=(digest(&plan.preview().ids));
                div.row {
                    @if cancels || asked.all {
                        label { "Type " strong { (number(count)) } " to confirm"
                            input name="typed" autocomplete="off" inputmode="numeric" required; }
                    }
                    button.danger[cancels] type="submit" { (verb) ": " (what) }
                    a.button.quiet href=(list) { "Back" }
                }
            }
        } @else { p { a href=(list) { "Go back to the retries" } } }
        (command.show())
    };
    let page = Page::new(visit, format!("{verb} retries of {topic}/{group}"), body)
        .under(topic.to_string(), visit.links().topic(topic))
        .under(group.to_string(), visit.links().group(topic, group))
        .under("Retries", list.clone());
    page.into_response()
}

/// Runs or cancels what the preview showed.
pub(in crate::console) async fn run(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let asked = Asked::read(&fields)?;
    let retries = visit.app.container.retries();
    let plan = retries
        .plan(&topic, &group, asked.action, asked.selection())
        .await?;
    let count = plan.preview().matching;
    let asks = asked.all || asked.action == RetryAction::Cancel;
    let typed_count = typed(fields.get("typed")) == count.to_string();
    let same = fields.get("shown") == digest(&plan.preview().ids);
    if asks && !(typed_count && same) {
        let rule = match fields.get("shown").is_empty() && !typed_count || same {
            true => format!("type {} to confirm; nothing was changed", number(count)),
            false => "these are not the retries of the preview; nothing was changed".to_owned(),
        };
        let mut page = confirmation(&visit, &topic, &group, &asked, &plan, Some(&rule));
        *page.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(page);
    }
    let report = retries.run(plan.confirm_unasked()).await?;
    tracing::info!(%topic, %group, by = visit.access.name(), moved = report.moved, "retries changed from the console");
    let deed = match asked.action {
        RetryAction::RunNow => Deed::RanNow,
        RetryAction::Cancel => Deed::Cancelled,
    };
    let list = visit.links().retries(&topic, &group);
    Ok(see_other(&Said::on(
        deed,
        report.moved,
        report.missing,
        &list,
    )))
}
