//! The keys of the key-value store that begin with a text.

use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use std::time::Duration;

use crate::console::act::said::Said;
use crate::console::failure::Failure;
use crate::console::page::{Command, Page, Query, counted, duration, number, safe};
use crate::console::visit::Visit;
use crate::domain::{ErrorKind, describe};
use crate::operate::views::{LISTED_BYTES, ListedValue};
use crate::store::KeyCursor;

/// About how many keys a page shows.
const PAGE: usize = 50;

/// How many characters of a value a page shows.
const VALUE: usize = 100;

/// The forms that ask for a list and for one value.
pub(super) fn forms(visit: &Visit, prefix: &str, key: &str) -> Markup {
    let address = visit.links().to("/kv");
    html! {
        form.row method="get" action=(address) {
            label { "Keys that begin with" input name="prefix" value=(prefix) autocomplete="off" spellcheck="false"; }
            button type="submit" { "List keys" }
        }
        form.row method="get" action=(address) {
            label { "Key" input name="key" value=(key) required autocomplete="off" spellcheck="false"; }
            button.quiet type="submit" { "Show the value" }
        }
    }
}

/// A page of keys.
pub(super) async fn page(
    visit: &Visit,
    prefix: &str,
    from: &str,
    said: Said,
) -> Result<Response, Failure> {
    let kv = visit.app.container.kv();
    let from = (!from.is_empty()).then(|| KeyCursor::new(from));
    let found = match kv.keys(prefix, from.as_ref(), PAGE).await {
        Ok(found) => Ok(found),
        // The user of the server may still read a value by its key.
        Err(error) if error.kind() == ErrorKind::Refused => Err(describe(&error)),
        Err(error) => return Err(error.into()),
    };
    let list = match found {
        Ok(mut found) => {
            found.keys.sort_unstable();
            let names: Vec<&str> = found.keys.iter().map(String::as_str).collect();
            let peeked = kv.port().peek_bytes(&names, LISTED_BYTES).await?;
            // A value that has expired meanwhile is left out.
            let listed = names.iter().zip(peeked);
            let listed = listed.filter_map(|(key, peeked)| Some(ListedValue::new(*key, peeked?)));
            let listed: Vec<ListedValue> = listed.collect();
            html! {
                (table(visit, prefix, &listed, found.next.is_some()))
                @if let Some(next) = found.next {
                    @let query = Query::default().with("prefix", prefix).with("from", next.to_string());
                    p { a href=(query.on(&visit.links().to("/kv"))) {
                        @if listed.is_empty() { "Search on" } @else { "More keys" }
                    } }
                }
            }
        }
        Err(why) => html! {
            div.note.warn role="alert" {
                p { "The keys cannot be listed: " (safe(&why)) }
                p { "A value is shown by its whole key all the same." }
            }
        },
    };
    let command = Command::new(&["kv", "list"]);
    let command = command.option("--prefix", (!prefix.is_empty()).then_some(prefix));
    let body = html! {
        (said.show())
        (forms(visit, prefix, ""))
        (list)
        (command.show())
    };
    Ok(Page::new(visit, "Values", body).into_response())
}

fn table(visit: &Visit, prefix: &str, listed: &[ListedValue], more: bool) -> Markup {
    if listed.is_empty() {
        return html! {
            div.empty {
                @if more { p { "No key was found yet. The store has many others." } }
                @else if prefix.is_empty() { p { "No keys here." } }
                @else { p { "No key here begins with " code { (safe(prefix)) } "." } }
            }
        };
    }
    let address = visit.links().to("/kv");
    html! {
        div.scroll tabindex="0" role="region" aria-label="Keys" {
            table {
                caption { (counted(listed.len() as u64, "key", "keys")) @if more { ", and more" } }
                thead { tr {
                    th scope="col" { "Key" } th scope="col" { "Form" } th.n scope="col" { "Bytes" }
                    th scope="col" { "Expires" } th scope="col" { "Value" }
                } }
                tbody { @for value in listed { tr {
                    @let query = Query::default().with("key", value.key());
                    th.wrap scope="row" { a.mono href=(query.on(&address)) { (safe(value.key())) } }
                    td { (name(value.form())) }
                    td.n { (number(value.bytes())) }
                    td { (expires(value.expires_in_ms().map(Duration::from_millis))) }
                    td.wrap.mono { (value.excerpt(VALUE)) }
                } } }
            }
        }
    }
}

/// What a page calls the form of a value.
pub(super) fn name(form: &'static str) -> &'static str {
    match form {
        "json" => "JSON",
        "messagepack" => "MessagePack",
        "once" => "mark of a run that happens once",
        "bytes" => "neither JSON nor MessagePack nor text",
        other => other,
    }
}

/// When a value expires.
pub(super) fn expires(left: Option<Duration>) -> String {
    left.map_or_else(
        || "never".to_owned(),
        |left| format!("in {}", duration(left)),
    )
}
