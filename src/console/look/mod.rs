//! Pages that show a topic, a group, its retries, the journal, the doctor and the health.

pub(super) mod doctor;
pub(super) mod entry;
pub(super) mod group;
pub(super) mod health;
pub(super) mod operations;
mod owned;
pub(super) mod retries;
pub(super) mod topic;
pub(super) mod value;
mod values;
