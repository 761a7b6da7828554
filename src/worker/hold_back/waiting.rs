//! The messages that wait in this process for their next attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::domain::whole_millis;
use crate::store::{Begin, Store};
use crate::worker::hold_back::space::{MESSAGES, Space, Taken};
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;
use crate::worker::tracks::{Senders, channels};

/// A failure on its way to the store, and the message that then waits.
#[derive(Debug)]
pub(crate) struct Note {
    /// What the store is told.
    pub(crate) begin: Begin,
    /// Whether the store counts the next attempt as begun, so that it needs no mark of its own.
    pub(crate) counts_next: bool,
    pub(crate) due: Due,
    pub(crate) message: Queued,
}

impl Note {
    pub(crate) fn hand_out(&self) -> HandOut {
        HandOut {
            id: self.begin.delivery,
            token: self.message.lease.token(),
        }
    }
}

/// When a message is due, in milliseconds of the subscription's timer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Due(u64);

/// What a subscription holds back.
#[derive(Debug)]
pub(crate) struct HoldBack {
    /// The longest delay; zero holds nothing back.
    longest: Duration,
    space: Arc<Space>,
    notes: Senders<Note>,
    waiting: Mutex<Waiting>,
    /// Wakes the timer.
    pub(crate) changed: Notify,
    store: Arc<dyn Store>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By due time, and by token.
    messages: BTreeMap<(Due, u64), Queued>,
    /// The subscription stops: nothing waits any more.
    closed: bool,
}

impl HoldBack {
    /// What a subscription holds back, and the queue of the notes of each track.
    pub(crate) fn new(
        longest: Duration,
        store: Arc<dyn Store>,
        tracks: usize,
    ) -> (Self, Vec<mpsc::Receiver<Note>>) {
        // Each note has its space, so the channels are never full.
        let (notes, queues) = channels(tracks, MESSAGES);
        let hold_back = Self {
            longest,
            space: Arc::default(),
            notes,
            waiting: Mutex::default(),
            changed: Notify::new(),
            store,
            began: Instant::now(),
        };
        (hold_back, queues)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the space of a message that waits for a time. `None` where it must not wait here.
    pub(crate) fn take(&self, delay: Duration, bytes: usize) -> Option<Taken> {
        let short = !self.longest.is_zero() && delay <= self.longest;
        short.then(|| self.space.take(bytes)).flatten()
    }

    /// How many messages are held back, with those on their way to the store and to a worker.
    pub(crate) fn messages(&self) -> usize {
        self.space.messages()
    }

    /// How many messages wait for their time.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> usize {
        self.waiting().messages.len()
    }

    /// Passes a failure on to the store.
    pub(crate) fn note(&self, note: Note) {
        // It fails after the end of a shutdown, which has given the delivery back.
        let _ = self.notes.of(note.begin.delivery).try_send(note);
    }

    /// The time by the store's clock where the store keeps one, as for its own retries.
    fn now(&self) -> u64 {
        if self.store.keeps_time() {
            u64::try_from(self.store.now().as_millis()).unwrap_or(0)
        } else {
            whole_millis(self.began.elapsed())
        }
    }

    /// When a message is due that waits from now on.
    pub(crate) fn due_after(&self, delay: Duration) -> Due {
        Due(self.now().saturating_add(whole_millis(delay)))
    }

    /// How long it is until a message is due.
    pub(crate) fn left(&self, due: Due) -> Duration {
        Duration::from_millis(due.0.saturating_sub(self.now()))
    }

    /// Lets a message wait. Returns it where the subscription stops.
    pub(crate) fn insert(&self, due: Due, message: Queued) -> Result<(), Queued> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(message);
        }
        let first = waiting.messages.first_key_value();
        let is_first = first.is_none_or(|((first, _), _)| due < *first);
        let token = message.lease.token();
        waiting.messages.insert((due, token), message);
        if is_first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// How long it is until the next message is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        let waiting = self.waiting();
        let first = waiting.messages.first_key_value();
        first.map(|((due, _), _)| self.left(*due))
    }

    /// Removes the messages that are due.
    pub(crate) fn take_due(&self) -> Vec<Queued> {
        let now = Due(self.now());
        let mut due = Vec::new();
        let messages = &mut self.waiting().messages;
        while let Some(first) = messages.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }

    /// Removes all messages, and lets no other wait.
    pub(crate) fn close(&self) -> Vec<(Due, Queued)> {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let all = std::mem::take(&mut waiting.messages).into_iter();
        all.map(|((due, _), message)| (due, message)).collect()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().closed
    }
}
