//! Tests that the checker of histories detects each broken promise.

// The runner and the conformance suite use the rest.
#[allow(dead_code)]
#[path = "../../support/broken.rs"]
mod broken;
#[allow(dead_code)]
#[path = "../checker/mod.rs"]
mod checker;
#[allow(dead_code)]
#[path = "../history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../nature.rs"]
mod nature;
#[allow(dead_code)]
#[path = "../pipeline.rs"]
mod pipeline;
#[allow(dead_code)]
#[path = "../traps.rs"]
mod proxied;
#[path = "../../support/mod.rs"]
mod support;

mod deaths;
mod histories;
mod keys;
mod owned;
mod registers;
mod small;
mod stores;
mod story;
mod traps;
mod variants;
