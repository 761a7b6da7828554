//! The backlog limit: publishing fails clearly instead of filling the server's memory.
//!
//! Measuring costs a script, so it is not done for every message. A measurement grants a
//! credit of an eighth of what is free; each message spends one. Several publishers can
//! so exceed the limit together by an eighth each, and no more.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use crate::domain::{Error, ErrorKind, Topic, TopicSettings};
use crate::store::Store;

/// A credit is worthless after this, in milliseconds: others may have published meanwhile.
const CREDIT_LIVES: u64 = 10_000;
/// A topic that was full is not measured again before this.
const FULL_LIVES: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Backlog {
    store: Arc<dyn Store>,
    gates: RwLock<HashMap<Topic, Arc<Gate>>>,
}

struct Gate {
    /// Looked up once: by its labels that costs more than counting.
    published: Counter,
    credit: AtomicU64,
    /// Admitted, and perhaps not yet in the topic where a measurement would find it.
    under_way: AtomicU64,
    measured: tokio::sync::Mutex<Option<Measured>>,
    /// When the credit expires, in milliseconds since the gate was made.
    expires: AtomicU64,
    made: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Instant,
    settings: TopicSettings,
    full: bool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("credit", &self.credit)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Gate {
    fn new(topic: &Topic) -> Self {
        Self {
            published: metrics::counter!("redstart_published_total", "topic" => topic.to_string()),
            credit: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            measured: tokio::sync::Mutex::default(),
            expires: AtomicU64::new(0),
            made: Instant::now(),
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes up to `wanted` from the credit.
    fn spend(&self, wanted: u64) -> u64 {
        let spent = self
            .credit
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |credit| {
                Some(credit.saturating_sub(wanted))
            });
        // The closure always returns Some, so there is always a former value.
        spent.unwrap_or_default().min(wanted)
    }

    /// Lets a credit that has grown old expire.
    fn expire(&self) {
        if self.age() > self.expires.load(Ordering::Relaxed) {
            self.credit.store(0, Ordering::Release);
        }
    }
}

/// Messages that may be appended. Dropped when they have been.
#[derive(Debug)]
pub(super) struct Admitted {
    gate: Arc<Gate>,
    pub(super) count: u64,
}

impl Admitted {
    /// Counts what was published of them.
    pub(super) fn count_published(&self, messages: u64) {
        self.gate.published.increment(messages);
    }

    /// Takes from the credit what is missing to `wanted`.
    fn spend(&mut self, wanted: u64) {
        let spent = self.gate.spend(wanted - self.count);
        self.gate.under_way.fetch_add(spent, Ordering::AcqRel);
        self.count += spent;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gate.under_way.fetch_sub(self.count, Ordering::AcqRel);
    }
}

impl Backlog {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            gates: RwLock::default(),
        }
    }

    fn gate(&self, topic: &Topic) -> Arc<Gate> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(topic) {
            return Arc::clone(gate);
        }
        drop(gates);
        let mut gates = self.gates.write().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(topic.clone());
        Arc::clone(gate.or_insert_with(|| Arc::new(Gate::new(topic))))
    }

    /// Admits up to `wanted` messages, in their order; creates the topic where it is missing.
    ///
    /// Returns how many are admitted, and for the rest why not.
    pub(super) async fn admit(&self, topic: &Topic, wanted: u64) -> (Admitted, Result<(), Error>) {
        let gate = self.gate(topic);
        gate.expire();
        let mut admitted = Admitted { gate, count: 0 };
        loop {
            admitted.spend(wanted);
            let missing = wanted - admitted.count;
            if missing == 0 {
                return (admitted, Ok(()));
            }
            if let Err(error) = self.refill(topic, &admitted.gate, missing).await {
                return (admitted, Err(error));
            }
        }
    }

    async fn refill(&self, topic: &Topic, gate: &Gate, wanted: u64) -> Result<(), Error> {
        let mut measured = gate.measured.lock().await;
        let full = || {
            let rule = "backlog full: groups have not settled what the topic holds; \
                        let them catch up or raise the topic's backlog limit";
            Err(Error::new(ErrorKind::BacklogFull, "publish", rule).on(topic.as_str()))
        };
        if gate.credit.load(Ordering::Acquire) > 0 {
            // Another caller has refilled it while this one waited.
            return Ok(());
        }
        if measured.is_some_and(|last| last.full && last.at.elapsed() < FULL_LIVES) {
            return full();
        }
        let settings = match *measured {
            Some(last) => last.settings,
            None => {
                let defaults = TopicSettings::default();
                self.store
                    .ensure_topic(topic, defaults)
                    .await
                    .map_err(|e| nothing_appended(e, topic))?
            }
        };
        // A measurement that was lost on its way is repeated; it appends nothing, so its failure
        // never leaves a message's fate open.
        let state = match self.store.trim(topic).await {
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => self.store.trim(topic).await,
            measured => measured,
        }
        .map_err(|e| nothing_appended(e, topic))?;
        let settings = if state.known {
            settings
        } else {
            self.store
                .ensure_topic(topic, settings)
                .await
                .map_err(|e| nothing_appended(e, topic))?
        };
        let taken = state.backlog + gate.under_way.load(Ordering::Acquire);
        let free = settings.backlog_limit().saturating_sub(taken);
        *measured = Some(Measured {
            at: Instant::now(),
            settings,
            full: free == 0,
        });
        if free == 0 {
            return full();
        }
        gate.expires
            .store(gate.age() + CREDIT_LIVES, Ordering::Relaxed);
        gate.credit
            .store((free / 8).max(wanted.min(free)), Ordering::Release);
        Ok(())
    }
}

/// What comes before appending leaves no message's fate open.
fn nothing_appended(error: Error, topic: &Topic) -> Error {
    if error.kind() != ErrorKind::OutcomeUnknown {
        return error;
    }
    let rule = "the backlog could not be measured; nothing was published";
    Error::new(ErrorKind::Unavailable, "publish", rule)
        .on(topic.as_str())
        .because(error)
}
