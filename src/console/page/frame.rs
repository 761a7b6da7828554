//! The frame of a page: head, navigation, the way here, and the page of a failure.

use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::console::access::Access;
use crate::console::assets;
use crate::console::failure::Failure;
use crate::console::visit::Visit;

use super::format::safe;

/// The navigation: name and path.
const PAGES: [(&str, &str); 5] = [
    ("Overview", "/"),
    ("Dead letters", "/dead"),
    ("Operations", "/operations"),
    ("Values", "/kv"),
    ("Doctor", "/doctor"),
];

/// The pages of the navigation, with or without that of values.
fn pages(values: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGES
        .into_iter()
        .filter(move |(_, path)| values || *path != "/kv")
}

/// A page before it is rendered.
pub(in crate::console) struct Page<'a> {
    visit: &'a Visit,
    title: String,
    /// Links to the pages above this one.
    above: Vec<(String, String)>,
    body: Markup,
    live: bool,
}

impl<'a> Page<'a> {
    pub(in crate::console) fn new(
        visit: &'a Visit,
        title: impl Into<String>,
        body: Markup,
    ) -> Self {
        Self {
            visit,
            title: title.into(),
            above: Vec::new(),
            body,
            live: false,
        }
    }

    /// Adds a page above this one: its name and address.
    pub(in crate::console) fn under(mut self, name: impl Into<String>, address: String) -> Self {
        self.above.push((name.into(), address));
        self
    }

    /// Says that a region of the page follows the figures.
    pub(in crate::console) fn live(mut self) -> Self {
        self.live = true;
        self
    }

    fn markup(&self) -> Markup {
        let visit = self.visit;
        let (links, options) = (visit.links(), &visit.app.options);
        let asset = |name: &str| links.to(&assets::path(name));
        // A visitor without access learns nothing about the place.
        let inside = visit.access != Access::Forbidden;
        let place = match options.title.as_str() {
            _ if !inside => "Redstart".to_owned(),
            "" => "Redstart".to_owned(),
            title => format!("{} · Redstart", safe(title)),
        };
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (safe(&self.title)) " · " (place) }
                    link rel="icon" type="image/svg+xml" href=(asset("icon.svg"));
                    link rel="stylesheet" href=(asset("style.css"));
                    script src=(asset("theme.js")) {}
                    script src=(asset("console.js")) defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href=(links.overview()) { (mark()) "Redstart" }
                        @if inside && !options.title.is_empty() {
                            span.place { (safe(&options.title)) }
                        }
                        @if inside { nav aria-label="Pages" {
                            @for (name, path) in pages(options.values) {
                                @let here = is_here(&visit.path, path);
                                a href=(links.to(path)) aria-current=[here.then_some("page")] { (name) }
                            }
                        } }
                        div.tools {
                            @if self.live {
                                button.quiet type="button" data-pause hidden aria-pressed="false" { "Pause" }
                            }
                            button.quiet type="button" data-theme-switch hidden { "Theme" }
                            @if inside { span.who { (who(visit)) } }
                        }
                    }
                    main #main tabindex="-1" {
                        @if !self.above.is_empty() {
                            nav.crumbs aria-label="The way here" {
                                @for (name, address) in &self.above {
                                    a href=(address) { (safe(name)) } span aria-hidden="true" { "/" }
                                }
                            }
                        }
                        h1 { (safe(&self.title)) }
                        (self.body)
                    }
                    footer { "Redstart " (env!("CARGO_PKG_VERSION")) }
                    p #said .said role="status" aria-live="polite" {}
                }
            }
        }
    }
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        Html(self.markup().into_string()).into_response()
    }
}

/// The console's mark: a bird on a branch, drawn with two shapes.
fn mark() -> Markup {
    html! {
        svg.mark width="22" height="22" viewBox="0 0 32 32" aria-hidden="true" {
            path d="M4 20c6 6 16 6 20-2l5-3-4-2c-1-5-8-6-11-1-2 4-5 7-10 8z" {}
            circle.eye cx="21.5" cy="12.5" r="1.4" {}
        }
    }
}

fn is_here(path: &str, page: &str) -> bool {
    match page {
        "/" => path == "/" || path.starts_with("/topics") || path.starts_with("/retries"),
        page => {
            path == page
                || path
                    .strip_prefix(page)
                    .is_some_and(|rest| rest.starts_with('/'))
        }
    }
}

fn who(visit: &Visit) -> String {
    let role = match visit.may_change() {
        true => "operator",
        false if visit.app.options.read_only => "read only",
        false => "viewer",
    };
    match visit.access.name() {
        "" => format!("anonymous · {role}"),
        name => format!("{} · {role}", safe(name)),
    }
}

/// The page of a failure.
pub(in crate::console) fn failed<'a>(visit: &'a Visit, failure: &Failure) -> Page<'a> {
    let title = match failure.status.as_u16() {
        401 => "Log in",
        403 => "Not allowed",
        404 => "Not found",
        405 | 400 | 409 | 422 => "Not possible",
        429 => "Too many attempts",
        503 | 504 => "No connection",
        _ => "Failed",
    };
    let body = html! {
        div.note.bad role="alert" {
            p { (safe(&failure.message)) }
        }
        @if visit.access != Access::Forbidden {
            p { a href=(visit.links().overview()) { "Go to the overview" } }
        }
    };
    Page::new(visit, title, body)
}

/// A list of facts.
pub(in crate::console) fn facts(rows: Markup) -> Markup {
    html! { dl.facts { (rows) } }
}

/// A fact: a name and its value.
pub(in crate::console) fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A region that the script replaces whenever it changes. `path` is that of the page.
pub(in crate::console) fn live(visit: &Visit, path: &str, region: Markup) -> Markup {
    html! {
        div data-stale {}
        div data-live=(path) data-events=(visit.links().to("/events")) { (region) }
    }
}
