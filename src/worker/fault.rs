//! Failures of the subscription's parts, and how long a part waits before it tries again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::supervise::Watch;
pub(crate) use crate::api::supervise::back_off;
use crate::domain::{Error, describe};

/// The failure of one part of a subscription, kept for as long as it lasts. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    pub(crate) fn set(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(describe(error));
    }

    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn text(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The faults of a subscription's parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) reading: Fault,
    pub(crate) extending: Fault,
    pub(crate) promoting: Fault,
    pub(crate) settling: Fault,
    pub(crate) acknowledging: Fault,
    pub(crate) marking: Fault,
    pub(crate) noting: Fault,
    pub(crate) committing: Fault,
    pub(crate) owning: Fault,
    pub(crate) flushing: Fault,
    /// The tasks that died.
    pub(crate) watch: Watch,
}

impl Faults {
    /// The faults of the parts of another track. The tasks of all tracks have one watch.
    pub(crate) fn of_another_track(&self) -> Self {
        Self {
            watch: self.watch.clone(),
            ..Self::default()
        }
    }

    /// Names each part that fails at the moment, with its error, and each task that died.
    #[cfg(test)]
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem_of([self].into_iter())
    }

    /// The same for the parts of several tracks: a part that fails in some of them is named once.
    pub(crate) fn problem_of<'a>(
        &'a self,
        tracks: impl Iterator<Item = &'a Self> + Clone,
    ) -> Option<String> {
        if self.watch.has_lost_its_runtime() {
            let rule = "its runtime has ended, so nothing reads; subscribe again";
            return Some(rule.to_owned());
        }
        type Part = (&'static str, fn(&Faults) -> &Fault);
        let parts: [Part; 10] = [
            ("reading", |track| &track.reading),
            ("extending leases", |track| &track.extending),
            ("bringing retries back", |track| &track.promoting),
            ("settling", |track| &track.settling),
            ("acknowledging", |track| &track.acknowledging),
            ("marking attempts", |track| &track.marking),
            ("noting failures", |track| &track.noting),
            ("committing effects", |track| &track.committing),
            ("owning partitions", |track| &track.owning),
            ("writing acknowledgements", |track| &track.flushing),
        ];
        let failing: Vec<String> = parts
            .into_iter()
            .filter_map(|(part, fault)| {
                let text = tracks.clone().find_map(|track| fault(track).text())?;
                Some(format!("{part}: {text}"))
            })
            .chain(self.watch.problem())
            .collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    }
}

/// How long handlers have been backing off without an acknowledgement in between.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    lasts: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Pressure {
    /// Notes that a handler backs off now. Returns how long handlers have been doing so.
    pub(crate) fn note(&self, now: Instant) -> Duration {
        self.lasts.store(true, Ordering::Relaxed);
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(*since.get_or_insert(now))
    }

    /// Notes an acknowledgement. Reads one flag while no handler backs off.
    pub(crate) fn clear(&self) {
        if self.lasts.load(Ordering::Relaxed) {
            self.lasts.store(false, Ordering::Relaxed);
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    #[test]
    fn a_problem_names_every_failing_part_until_it_works_again() {
        let faults = Faults::default();
        assert_eq!(faults.problem(), None);
        let error = |text: &str| Error::new(ErrorKind::Unavailable, "read", text);
        faults.reading.set(&error("cut"));
        faults.clone().settling.set(&error("full"));
        assert_eq!(
            faults.problem().as_deref(),
            Some("reading: read: cut; settling: read: full")
        );
        faults.reading.clear();
        assert_eq!(faults.problem().as_deref(), Some("settling: read: full"));
    }

    #[test]
    fn pressure_lasts_until_an_acknowledgement() {
        let (pressure, began) = (Pressure::default(), Instant::now());
        let later = began + Duration::from_secs(3);
        assert_eq!(pressure.note(began), Duration::ZERO);
        assert_eq!(pressure.note(later), Duration::from_secs(3));
        pressure.clear();
        assert_eq!(pressure.note(later), Duration::ZERO);
    }
}
