//! Values of the key-value store: a list of keys, or one value by its key.

use axum::extract::Query as Fields;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use super::values::{self, expires, name};
use crate::console::act::said::Said;
use crate::console::act::value as change;
use crate::console::dead::payload;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, counted, fact, facts, safe};
use crate::console::visit::Visit;
use crate::operate::escape;
use crate::operate::views::{OnceState, form, value_json};
use crate::store::Peeked;

/// How many bytes of a value the page reads.
const READ: usize = 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Asked {
    key: String,
    prefix: String,
    from: String,
}

pub(in crate::console) async fn page(
    visit: Visit,
    Fields(asked): Fields<Asked>,
    Fields(said): Fields<Said>,
) -> Result<Response, Failure> {
    let key = asked.key.as_str();
    if key.is_empty() {
        return values::page(&visit, &asked.prefix, &asked.from, said).await;
    }
    let kv = visit.app.container.kv();
    let found = kv.port().peek_bytes(&[key], READ).await?;
    let found = found.into_iter().next().flatten();
    let command = Command::new(&["kv", "get"]);
    let command = match key.starts_with('-') {
        true => command.arg("--").arg(key),
        false => command.arg(key),
    };
    let body = html! {
        (said.show())
        (values::forms(&visit, "", key))
        @match &found {
            Some(found) => (value(found)),
            None => div.empty { p { "The key " code { (safe(key)) } " does not exist." } },
        }
        @if visit.may_change() { (change::forms(&visit, key, found.as_ref())) }
        (command.show())
    };
    let title = escape::excerpt(key, 80);
    let mut page = Page::new(&visit, title, body)
        .under("Values", visit.links().to("/kv"))
        .into_response();
    if found.is_none() {
        *page.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(page)
}

fn value(found: &Peeked) -> Markup {
    let bytes = &found.bytes;
    let is_whole = bytes.len() as u64 == found.len;
    let readable = value_json(bytes).filter(|_| is_whole);
    let (form, shown) = match (OnceState::of(bytes), readable) {
        (Some(state), _) => (name("once"), once(&state)),
        (None, Some(value)) => (name(form(bytes)), payload::json(value.get(), "Value")),
        (None, None) if !is_whole => ("too long to be shown whole", beginning(found)),
        (None, None) => (name("bytes"), payload::bytes(bytes)),
    };
    html! {
        (facts(html! {
            (fact("Form", html! { (form) }))
            (fact("Size", html! { (counted(found.len, "byte", "bytes")) }))
            (fact("Expires", html! { (expires(found.expires_in)) }))
        }))
        h2 { "Value" }
        (shown)
    }
}

fn beginning(found: &Peeked) -> Markup {
    let shown = &found.bytes[..found.bytes.len().min(payload::HEX)];
    let left = found.len - shown.len() as u64;
    html! {
        (payload::bytes(shown))
        p.soft { (counted(left, "more byte", "more bytes")) ". The command shows all of it." }
    }
}

fn once(state: &OnceState) -> Markup {
    html! {
        p { span.badge { (state.once) } }
        @match &state.result {
            Some(result) => (payload::json(result.get(), "Result")),
            None => p.soft { "No result is stored." },
        }
    }
}
