//! The background jobs of a subscription, one file each.
//!
//! Each job is a struct of exactly what it needs, with a `run` that ends when the subscription
//! halts. No trait stands over them: nothing treats two jobs alike.

pub(crate) mod dead_letter_janitor;
pub(crate) mod gauges;
pub(crate) mod janitor;
pub(crate) mod lease_keeper;
pub(crate) mod promoter;
