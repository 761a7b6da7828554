//! One value of the key-value store, by its key.
//!
//! The store has no list of keys, so the page asks for one.

use axum::extract::Query as Fields;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::console::dead::payload;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, counted, fact, facts, safe};
use crate::console::visit::Visit;
use crate::operate::views::{OnceState, value_json};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Asked {
    key: String,
}

pub(in crate::console) async fn page(
    visit: Visit,
    Fields(asked): Fields<Asked>,
) -> Result<Response, Failure> {
    let address = visit.links().to("/kv");
    let key = asked.key.as_str();
    let form = html! {
        form.row method="get" action=(address) {
            label { "Key" input name="key" value=(key) required autocomplete="off" spellcheck="false"; }
            button type="submit" { "Show the value" }
        }
    };
    if key.is_empty() {
        let body = html! {
            (form)
            div.empty { p { "Give the whole key. The store has no list of keys." } }
        };
        return Ok(Page::new(&visit, "Values", body).into_response());
    }
    let found = visit.app.container.kv().port().get_bytes(&[key]).await?;
    let bytes = found.into_iter().next().flatten();
    let is_there = bytes.is_some();
    let command = Command::new(&["kv", "get"]);
    let command = match key.starts_with('-') {
        true => command.arg("--").arg(key),
        false => command.arg(key),
    };
    let body = html! {
        (form)
        @match &bytes {
            Some(bytes) => (value(bytes)),
            None => div.empty { p { "The key " code { (safe(key)) } " does not exist." } },
        }
        (command.show())
    };
    let mut page = Page::new(&visit, "Values", body).into_response();
    if !is_there {
        *page.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(page)
}

fn value(bytes: &Bytes) -> Markup {
    let (form, shown) = match (OnceState::of(bytes), value_json(bytes)) {
        (Some(state), _) => ("the mark of a run that happens once", once(&state)),
        (None, Some(value)) => (form(bytes), payload::json(value.get(), "Value")),
        (None, None) => (
            "neither JSON nor MessagePack nor text",
            payload::bytes(bytes),
        ),
    };
    html! {
        (facts(html! {
            (fact("Form", html! { (form) }))
            (fact("Size", html! { (counted(bytes.len() as u64, "byte", "bytes")) }))
        }))
        h2 { "Value" }
        (shown)
    }
}

/// The name of a readable value's form.
fn form(bytes: &[u8]) -> &'static str {
    let is_json = || serde_json::from_slice::<&RawValue>(bytes).is_ok();
    match bytes.first() {
        Some(0xC1) => "MessagePack",
        _ if is_json() => "JSON",
        _ => "text",
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
