//! Changing and deleting values of the key-value store.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::fields::{FormFields, duration, see_other};
use super::said::{Deed, Said};
use crate::console::failure::{Failure, doubt, is_certain};
use crate::console::page::{Page, Query, safe};
use crate::console::visit::Visit;
use crate::domain::describe;
use crate::operate::views::{OnceState, value_json};
use crate::operate::{escape, hex};
use crate::store::{CasResult, Peeked};

/// What a form says about a key that does not exist.
const ABSENT: &str = "absent";

/// Tells one value from another, so that a form changes only the value that its page has shown.
fn seen(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || ABSENT.to_owned(),
        |bytes| hex::word(&Sha256::digest(bytes)),
    )
}

/// The forms that change a value. A value that the page has not read whole can only be deleted by
/// the tool.
pub(in crate::console) fn forms(visit: &Visit, key: &str, found: Option<&Peeked>) -> Markup {
    let is_whole = found.is_none_or(|found| found.bytes.len() as u64 == found.len);
    if !is_whole {
        return html! {};
    }
    let bytes = found.map(|found| &found.bytes);
    let once = bytes.is_some_and(|bytes| OnceState::of(bytes).is_some());
    let text = bytes.and_then(value_json);
    let ttl = found.and_then(|found| found.expires_in).map(time);
    let seen = seen(bytes.map(|bytes| &bytes[..]));
    html! {
        @if !once {
            details {
                summary { @if found.is_some() { "Change the value" } @else { "Create the value" } }
                (set_form(visit, key, &seen, text.as_ref().map_or("", |text| text.get()), &ttl.unwrap_or_default()))
            }
        }
        @if found.is_some() {
            details {
                summary { "Delete the value" }
                @if once {
                    p { "The mark of a run goes with it: the next caller runs the work again." }
                }
                form method="post" action=(visit.links().to("/kv/delete")) {
                    input type="hidden" name="key" value=(key);
                    input type="hidden" name="seen" value=(seen);
                    div.row { button.danger type="submit" { "Delete the value" } }
                }
            }
        }
    }
}

fn set_form(visit: &Visit, key: &str, seen: &str, text: &str, ttl: &str) -> Markup {
    html! {
        form method="post" action=(visit.links().to("/kv/set")) {
            input type="hidden" name="key" value=(key);
            input type="hidden" name="seen" value=(seen);
            label { "Value, JSON" textarea.short name="value" required spellcheck="false" { (visible(text)) } }
            label { "Expires in, such as 90s, 2h or 7d; empty: never"
                input name="ttl" value=(ttl) autocomplete="off" spellcheck="false"; }
            div.row { button type="submit" { "Store the value" } }
        }
    }
}

/// JSON with invisible characters as its own escapes: the text has the same value.
fn visible(text: &str) -> String {
    escape::json(text)
}

/// A time to live as the form takes it.
fn time(ttl: Duration) -> String {
    match ttl.as_secs() {
        0 => format!("{}ms", ttl.as_millis().max(1)),
        seconds => format!("{seconds}s"),
    }
}

/// A change that was not made, or that may not have been made.
struct Not {
    status: StatusCode,
    rule: String,
    certain: bool,
}

impl Not {
    fn invalid(rule: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            rule: rule.into(),
            certain: true,
        }
    }

    fn changed() -> Self {
        let rule = "the value has changed since the page showed it";
        Self {
            status: StatusCode::CONFLICT,
            rule: rule.to_owned(),
            certain: true,
        }
    }
}

impl From<crate::domain::Error> for Not {
    fn from(error: crate::domain::Error) -> Self {
        Self {
            status: Failure::from(error.clone()).status,
            rule: describe(&error),
            certain: is_certain(&error),
        }
    }
}

/// Stores the value of the form, if the key still has the value that the page has shown.
pub(in crate::console) async fn set(visit: Visit, fields: FormFields) -> Result<Response, Failure> {
    match try_set(&visit, &fields).await {
        Ok(()) => {
            let key = fields.get("key");
            tracing::info!(
                key,
                by = visit.access.name(),
                "value stored from the console"
            );
            let address = Said::on(Deed::Stored, 1, 0, &visit.links().to("/kv"));
            let key = Query::default().with("key", key).on("");
            Ok(see_other(&address.replacen('?', &format!("{key}&"), 1)))
        }
        Err(not) => Ok(refused(&visit, &fields, not, true)),
    }
}

async fn try_set(visit: &Visit, fields: &FormFields) -> Result<(), Not> {
    let (key, kv) = (fields.get("key"), visit.app.container.kv());
    let value = RawValue::from_string(fields.get("value").trim().to_owned())
        .map_err(|error| Not::invalid(format!("value: not JSON: {error}")))?;
    let ttl = match fields.get("ttl").trim() {
        "" => None,
        text => Some(duration("time to live", text).map_err(Not::invalid)?),
    };
    let now = current(visit, key).await?;
    if seen(now.as_deref()) != fields.get("seen") {
        return Err(Not::changed());
    }
    if now.as_deref().and_then(OnceState::of).is_some() {
        let rule =
            "the key holds the mark of a run that happens once; delete it to allow another run";
        return Err(Not::invalid(rule));
    }
    let new = kv.encode(key, &value)?;
    match kv.port().cas_bytes(key, now, new, ttl).await? {
        CasResult::Swapped => Ok(()),
        CasResult::Differs(_) => Err(Not::changed()),
    }
}

async fn current(visit: &Visit, key: &str) -> Result<Option<Bytes>, Not> {
    let found = visit.app.container.kv().port().get_bytes(&[key]).await?;
    Ok(found.into_iter().next().flatten())
}

/// Deletes the value that the page has shown.
pub(in crate::console) async fn delete(
    visit: Visit,
    fields: FormFields,
) -> Result<Response, Failure> {
    let key = fields.get("key");
    let deleted = async {
        let now = current(&visit, key).await?;
        if seen(now.as_deref()) != fields.get("seen") {
            return Err(Not::changed());
        }
        let Some(now) = now else { return Ok(()) };
        let store = visit.app.container.store();
        match store.values().delete_if(key, &now).await? {
            true => Ok(()),
            false => Err(Not::changed()),
        }
    };
    match deleted.await {
        Ok(()) => {
            tracing::info!(
                key,
                by = visit.access.name(),
                "value deleted from the console"
            );
            let address = visit.links().to("/kv");
            Ok(see_other(&Said::on(Deed::Deleted, 1, 0, &address)))
        }
        Err(not) => Ok(refused(&visit, &fields, not, false)),
    }
}

/// The page of a change that failed. It keeps what the operator typed.
fn refused(visit: &Visit, fields: &FormFields, not: Not, again: bool) -> Response {
    let key = fields.get("key");
    let again = again && matches!(not.status.as_u16(), 400 | 422);
    let address = Query::default()
        .with("key", key)
        .on(&visit.links().to("/kv"));
    let body = html! {
        div.note.bad role="alert" { p { (safe(&not.rule)) } p {
            @if not.certain { "Nothing was changed." } @else { (doubt("changed")) }
        } }
        @if again {
            (set_form(visit, key, fields.get("seen"), fields.get("value"), fields.get("ttl")))
        } @else if !fields.get("value").is_empty() {
            label { "Your value" textarea.short readonly { (visible(fields.get("value"))) } }
        }
        p { a href=(address) { "Show the value as it is now" } }
    };
    let page = Page::new(visit, escape::excerpt(key, 80), body);
    let mut page = page
        .under("Values", visit.links().to("/kv"))
        .into_response();
    *page.status_mut() = not.status;
    page
}
