//! The routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::failure::Failure;
use super::state::App;
use super::{act, api, assets, dead, live, look, overview};

/// All routes. With `read_only` none of them changes anything.
pub(super) fn router(app: Arc<App>) -> Router {
    let pages = Router::new()
        .route("/", get(overview::page))
        .route("/topics/{topic}", get(look::topic::page))
        .route("/topics/{topic}/entries/{id}", get(look::entry::page))
        .route(
            "/topics/{topic}/entries/{id}/payload",
            get(look::entry::payload),
        )
        .route("/topics/{topic}/groups/{group}", get(look::group::page))
        .route("/retries/{topic}/{group}", get(look::retries::page))
        .route("/dead", get(dead::causes::page))
        .route("/dead/{topic}/{group}", get(dead::list::page))
        .route("/dead/{topic}/{group}/sweep", get(act::sweep::preview))
        .route("/dead/{topic}/{group}/search", get(dead::search::events))
        .route("/dead/{topic}/{group}/export", get(dead::export::get))
        .route("/dead/{topic}/{group}/{id}", get(dead::letter::page))
        .route(
            "/dead/{topic}/{group}/{id}/payload",
            get(dead::letter::payload),
        )
        .route("/operations", get(look::operations::page))
        .route(
            "/operations/{topic}/{group}/{id}",
            get(look::operations::one),
        )
        .route("/events", get(live::events))
        .route("/doctor", get(look::doctor::page))
        .route("/healthz", get(look::health::alive))
        .route("/readyz", get(look::health::ready))
        .route("/assets/{version}/{name}", get(assets::get))
        .route("/favicon.ico", get(assets::icon));
    let values = app.options.values && app.container.store().capabilities().values;
    let pages = match values {
        true => pages.route("/kv", get(look::value::page)),
        false => pages,
    };
    let pages = pages.merge(api::reads());
    let all = match (app.options.read_only, values) {
        (true, _) => pages,
        (false, false) => pages.merge(changes()).merge(api::changes()),
        (false, true) => {
            let values = Router::new()
                .route("/kv/set", post(act::value::set))
                .route("/kv/delete", post(act::value::delete));
            pages.merge(changes()).merge(api::changes()).merge(values)
        }
    };
    all.fallback(async || Failure::not_found("the console has no page at this address"))
        .with_state(app)
}

/// Every route that changes something, with the pages that only lead there.
fn changes() -> Router<Arc<App>> {
    Router::new()
        .route("/topics/{topic}/publish", post(act::publish::run))
        .route(
            "/topics/{topic}/groups/{group}/remove",
            get(act::removal::preview).post(act::removal::run),
        )
        .route("/retries/{topic}/{group}", post(act::retries::run))
        .route("/retries/{topic}/{group}/plan", get(act::retries::preview))
        .route("/dead/{topic}/{group}/sweep", post(act::sweep::run))
        .route("/dead/{topic}/{group}/note", post(act::note::run))
        .route(
            "/dead/{topic}/{group}/{id}/edit",
            get(act::edit::page).post(act::edit::run),
        )
        .route(
            "/operations/{topic}/{group}/{id}/stop",
            post(act::sweep::stop),
        )
        .route(
            "/operations/{topic}/{group}/{id}/resume",
            post(act::sweep::resume),
        )
}
