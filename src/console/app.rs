//! The routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::failure::Failure;
use super::state::App;
use super::{assets, dead, look, overview};

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
        .route("/doctor", get(look::doctor::page))
        .route("/healthz", get(look::health::alive))
        .route("/readyz", get(look::health::ready))
        .route("/assets/{version}/{name}", get(assets::get))
        .route("/favicon.ico", get(assets::icon));
    pages
        .fallback(async || Failure::not_found("the console has no page at this address"))
        .with_state(app)
}
