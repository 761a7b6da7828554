//! Style sheet, scripts and icon, built into the program.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use crate::operate::hex;

/// Name, content type, content.
const ASSETS: [(&str, &str, &str); 4] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("assets/style.css"),
    ),
    (
        "theme.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/theme.js"),
    ),
    (
        "console.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/console.js"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// Stands in the path of each asset, so that a browser may keep it for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in ASSETS {
        hash.update(name);
        hash.update(content);
    }
    hex::word(&hash.finalize()[..8])
});

/// The path of an asset within the console.
pub(super) fn path(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

pub(super) async fn get(Path((version, name)): Path<(String, String)>) -> Response {
    let found = ASSETS.iter().find(|(known, ..)| *known == name);
    let Some((_, kind, content)) = found else {
        return Failure::not_found("no such file").into_response();
    };
    // A page of another version asks for its own files during an upgrade: serve what exists, unkept.
    let kept = match version == *VERSION {
        true => "public, max-age=31536000, immutable",
        false => "no-store",
    };
    ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, kept)], *content).into_response()
}

/// The icon at the path where browsers look for one without being told.
pub(super) async fn icon() -> Response {
    let (_, kind, content) = ASSETS[3];
    ([(CONTENT_TYPE, kind)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assets_stay_small() {
        let lines = |at: usize| ASSETS[at].2.lines().count();
        assert!(ASSETS[0].2.len() <= 8 * 1024, "{}", ASSETS[0].2.len());
        assert!(lines(1) + lines(2) <= 220);
    }
}
