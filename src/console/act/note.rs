//! Writing a note on a cause.

use axum::extract::Path;
use axum::response::Response;

use super::fields::{FormFields, see_other};
use crate::console::dead::filter::FilterForm;
use crate::console::failure::Failure;
use crate::console::visit::{Visit, pair_of};

/// Writes the note, or removes it with an empty text.
pub(in crate::console) async fn run(
    visit: Visit,
    Path((topic, group)): Path<(String, String)>,
    fields: FormFields,
) -> Result<Response, Failure> {
    let (topic, group) = pair_of(&topic, &group)?;
    visit.app.container.topics().group(&topic, &group).await?;
    let (fingerprint, text) = (fields.get("fingerprint"), fields.get("note").trim());
    if fingerprint.is_empty() {
        return Err(Failure::invalid("the form names no cause"));
    }
    let dead = visit.app.container.dead_letters();
    dead.set_note(&topic, &group, fingerprint, text, visit.access.name())
        .await?;
    let cause = FilterForm::of(fields.get("reason"), fingerprint);
    Ok(see_other(
        &cause.query().on(&visit.links().dead(&topic, &group)),
    ))
}
