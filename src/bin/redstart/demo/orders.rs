//! Orders to the workers, and the events that come back.

use std::time::Duration;

use redstart::{Group, Namespace, Topic};

use super::ground::Place;
use super::report::Report;

/// The orders that every worker gets.
pub(super) struct Orders<'a> {
    pub(super) place: &'a Place,
    pub(super) namespace: &'a Namespace,
    pub(super) topic: &'a Topic,
    pub(super) group: &'a Group,
    pub(super) work: Duration,
    pub(super) log: String,
}

/// An event of a worker.
#[derive(Debug)]
pub(super) enum Event {
    Reported(Report),
    /// A line of its error output.
    Complained(String),
    /// Its output ended: the worker is dead or about to die.
    Ended,
}
