//! Sweeps: redrive, publish or purge many dead letters; stop one, and resume it.

use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use uuid::Uuid;

use super::fields::{FormFields, see_other};
use super::running::Begun;
use super::said::{Deed, Said};
use super::sweep_form::SweepForm;
use super::sweep_page::{SoFar, asks, show, show_part};
use crate::console::failure::Failure;
use crate::console::page::number;
use crate::console::visit::{Visit, pair_of};
use crate::domain::{Group, Topic};
use crate::operate::dead_letters::PlannedSweep;

/// Shows what the sweep would do. Changes nothing.
pub(in crate::console) async fn preview(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let form = SweepForm::read(&fields).map_err(Failure::invalid)?;
    let form = form.at(visit.now());
    let sweep = match form.sweep(visit.access.name(), visit.now()) {
        Ok(sweep) => sweep,
        Err(rule) => {
            return Ok(refuse(show(
                &visit,
                &topic,
                &group,
                &form,
                None,
                Some(&rule),
            )));
        }
    };
    let dead = visit.app.container.dead_letters();
    if form.count_all {
        let plan = dead.plan(&topic, &group, sweep).await?;
        let planned = Some(plan.preview());
        return Ok(show(&visit, &topic, &group, &form, planned, None));
    }
    let within = visit.app.options.search_time;
    let look = dead.look_within(&topic, &group, sweep, within).await?;
    let Some(searched) = look.searched else {
        let planned = Some(&look.planned);
        return Ok(show(&visit, &topic, &group, &form, planned, None));
    };
    let status = visit.app.container.topics().group(&topic, &group).await?;
    let so_far = SoFar {
        planned: &look.planned,
        searched,
        dead: status.dead,
    };
    Ok(show_part(&visit, &topic, &group, &form, &so_far))
}

/// How a sweep was tried.
pub(in crate::console) enum Tried {
    Begun(Uuid),
    /// Nothing matches any more.
    Nothing,
    /// A rule that the form breaks, and what the sweep would do.
    Refused(String, Option<Box<PlannedSweep>>),
}

/// Begins the sweep that a preview showed, if it is confirmed.
pub(in crate::console) async fn attempt(
    visit: &Visit,
    topic: &Topic,
    group: &Group,
    form: &SweepForm,
) -> Result<Tried, Failure> {
    let sweep = match form.sweep(visit.access.name(), visit.now()) {
        Ok(sweep) => sweep,
        Err(rule) => return Ok(Tried::Refused(rule, None)),
    };
    let action = sweep.action().clone();
    let dead = visit.app.container.dead_letters();
    if !form.by_ids() && form.up_to.is_none() {
        // Without it the sweep would take dead letters that no preview has shown.
        return Err(Failure::invalid(
            "the sweep has no watermark; look at the preview first",
        ));
    }
    if !form.by_ids() && form.filter.has_ages() {
        return Err(Failure::invalid(
            "since and until: an age such as 2h selects other dead letters than in the preview; \
             send the times of the plan",
        ));
    }
    let plan = dead.plan(topic, group, sweep).await?;
    let count = plan.preview().preview.matching;
    if asks(form, &action) && form.typed != count.to_string() {
        let rule = match form.typed.as_str() {
            "" => format!("type {} to confirm; nothing was changed", number(count)),
            typed => format!(
                "{} dead letters match now, and you typed {typed}; nothing was changed",
                number(count)
            ),
        };
        return Ok(Tried::Refused(rule, Some(Box::new(plan.preview().clone()))));
    }
    let begun = visit
        .app
        .sweeps
        .begin(dead, plan.confirm_unasked(), count)
        .await?;
    Ok(match begun {
        Begun::Operation(id) => Tried::Begun(id),
        Begun::Nothing => Tried::Nothing,
    })
}

/// Runs the sweep that the preview showed.
pub(in crate::console) async fn run(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    let form = SweepForm::read(&fields).map_err(Failure::invalid)?;
    Ok(match attempt(&visit, &topic, &group, &form).await? {
        Tried::Begun(id) => see_other(&visit.links().operation(&topic, &group, id)),
        Tried::Nothing => {
            let list = visit.links().dead(&topic, &group);
            see_other(&Said::on(Deed::NothingMatched, 0, 0, &list))
        }
        Tried::Refused(rule, planned) => refuse(show(
            &visit,
            &topic,
            &group,
            &form,
            planned.as_deref(),
            Some(&rule),
        )),
    })
}

fn refuse(mut page: Response) -> Response {
    *page.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    page
}

fn operation_of(id: &str) -> Result<Uuid, Failure> {
    id.parse()
        .map_err(|_| Failure::not_found("the id of an operation is a UUID"))
}

/// Stops a sweep of this process.
pub(in crate::console) async fn stop(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, operation_of(&id)?);
    if !visit.app.sweeps.stop(id) {
        let message =
            "the operation does not run in this console: it has ended, or it runs elsewhere";
        return Err(Failure::new(StatusCode::CONFLICT, message));
    }
    tracing::info!(operation = %id, by = visit.access.name(), "stopped from the console");
    let address = visit.links().operation(&topic, &group, id);
    Ok(see_other(&Said::on(Deed::Stopped, 0, 0, &address)))
}

/// Continues a sweep that was stopped or cut off.
pub(in crate::console) async fn resume(
    visit: Visit,
    Path((topic, group, id)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    let ((topic, group), id) = (pair_of(&topic, &group)?, operation_of(&id)?);
    let dead = visit.app.container.dead_letters();
    visit
        .app
        .sweeps
        .resume(dead, topic.clone(), group.clone(), id)
        .await?;
    tracing::info!(operation = %id, by = visit.access.name(), "resumed from the console");
    Ok(see_other(&visit.links().operation(&topic, &group, id)))
}
