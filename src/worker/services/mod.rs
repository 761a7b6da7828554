//! The background jobs of a subscription, one file each.

pub(crate) mod dead_letter_janitor;
pub(crate) mod janitor;
pub(crate) mod lease_keeper;
pub(crate) mod promoter;
