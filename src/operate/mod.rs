//! Operators' flows as data: topics and groups, scheduled retries, dead letters, the doctor.
//!
//! A call that destroys something has three steps: a plan says what will happen, an operator
//! confirms the plan, and the confirmed plan runs and returns a report. Each step is a value that
//! serialises, so that the command-line tool and other front ends render the same thing.

pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub mod escape;
pub mod exposition;
pub(crate) mod gauges;
pub(crate) mod group_removal;
pub(crate) mod group_reset;
pub mod hex;
pub(crate) mod housekeeping;
pub(crate) mod in_flight;
mod log_pages;
pub(crate) mod owned;
pub(crate) mod plan;
pub(crate) mod retries;
pub(crate) mod retry_plan;
pub(crate) mod schedules;
mod suggest;
pub(crate) mod topic_removal;
pub(crate) mod topic_settings;
pub(crate) mod topics;
pub mod views;
