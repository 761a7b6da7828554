//! What a step of the owner writes: what the store does not know yet, and what changes here once it does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::state::{Message, State, lock, place, weight};
use crate::domain::{EntryId, Window};
use crate::store::{Attempts, Commit, DeliveryId, End, Kind, LaneStep, Note, Rings, Step};
use crate::wire::redelivery::RETRY_FIELD;

/// The most acknowledgements that wait for a step.
const MOST_UNWRITTEN: usize = 250;

/// How long a message waits whose mark had no answer, once its partition answers again. Its next mark may fail, too.
const PAUSE: Duration = Duration::from_millis(100);

/// What a step changes here once the store has done it.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Messages that end with a retry or a dead letter.
    pub(super) ends: Vec<Commit>,
    /// Messages that failed and keep their place.
    pub(super) kept: Vec<(DeliveryId, Duration, Bytes)>,
    /// Deliveries that are given back, with the attempts that count.
    pub(super) released: Vec<(DeliveryId, Option<Attempts>)>,
    /// Messages that were put back before, with the attempts that count.
    pub(super) returned: Vec<(DeliveryId, Attempts)>,
    pub(super) begun: Vec<(DeliveryId, Attempts)>,
    /// Entries up to these may begin.
    pub(super) raise: [EntryId; 2],
    /// Of the entries that this owner has read, nothing has begun that is not settled.
    pub(super) lower: bool,
    /// Asks whether this process still owns the partition, though there is nothing to write.
    pub(super) verifies: bool,
    /// Acknowledged before, with their keys.
    pub(super) ended: Vec<(DeliveryId, Box<str>)>,
    /// How many acknowledgements the step tells the store.
    pub(super) acks: usize,
}

/// Attempts that wait for a step, as long as their caller does.
pub(super) struct Begins<'a> {
    state: &'a Mutex<State>,
    ids: Vec<DeliveryId>,
}

impl<'a> Begins<'a> {
    pub(super) fn wait(state: &'a Mutex<State>, begun: Vec<(DeliveryId, Attempts)>) -> Self {
        let ids = begun.iter().map(|(id, _)| *id).collect();
        lock(state).begins.extend(begun);
        Self { state, ids }
    }

    /// Waits until a step of another caller has noted all of them. Cancel safe.
    pub(super) async fn noted(&self, rings: &Rings) {
        loop {
            let seen = rings.count();
            let waits = |begins: &BTreeMap<_, _>| self.ids.iter().any(|id| begins.contains_key(id));
            if !waits(&lock(self.state).begins) {
                return;
            }
            rings.since(seen).await;
        }
    }
}

impl Drop for Begins<'_> {
    fn drop(&mut self) {
        let mut state = lock(self.state);
        for id in &self.ids {
            state.begins.remove(id);
        }
    }
}

impl State {
    /// Acknowledges a delivery here: the next step tells the store.
    pub(super) fn acknowledge(&mut self, id: DeliveryId) {
        if !self.messages.get(&id).is_some_and(|one| one.is_out) {
            return;
        }
        self.count_unwritten();
        if let Some(key) = self.settle(id) {
            self.is_awaited |= self.lines.has_next(&key);
            self.ended.push((id, key));
        }
    }

    fn count_unwritten(&mut self) {
        self.unwritten += 1;
        self.unwritten_since.get_or_insert_with(Instant::now);
    }

    /// Whether the acknowledgements are to be written now.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_awaited || self.unwritten >= MOST_UNWRITTEN
    }

    /// Ends a delivery whose effects the store has written: its mark counts until the next step.
    pub(super) fn end_marked(&mut self, id: DeliveryId) {
        if self.messages.contains_key(&id) {
            self.count_unwritten();
            self.forgets.insert(id);
            if let Some(key) = self.settle(id) {
                self.lines.end(id, Some(&key));
            }
        }
    }

    /// The windows after a change.
    fn after(&self, change: &Change) -> [Window; 2] {
        let mut windows = self.windows.clone();
        for id in change.ends.iter().map(Commit::delivery) {
            windows[place(id.lane)].settle(id.id);
        }
        for (window, high) in windows.iter_mut().zip(change.raise) {
            window.raise(high);
            if change.lower {
                window.lower();
            }
        }
        windows
    }

    /// Leaves out of a change what this owner does not hold, and what an earlier step has written.
    pub(super) fn restrict(&mut self, change: &mut Change) {
        change.kept.retain(|(id, ..)| {
            let message = self.messages.get_mut(id);
            !message.is_some_and(|message| std::mem::take(&mut message.repeats))
        });
        let is_out = |id: &DeliveryId| self.messages.get(id).is_some_and(|one| one.is_out);
        change.ends.retain(|one| is_out(&one.delivery()));
        change.kept.retain(|(id, ..)| is_out(id));
        change.released.retain(|(id, _)| is_out(id));
    }

    /// Adds the waiting acknowledgements and attempts to a change, and lets the messages of the next hand-out
    /// begin, so that a hand-out needs no step of its own.
    pub(super) fn gather(&mut self, change: &mut Change) {
        let settles = self.unwritten > 0 || !change.ends.is_empty();
        if settles && !change.lower {
            for (at, window) in self.windows.iter().enumerate() {
                let ahead = window.ahead(self.handed_out[at], self.ahead);
                change.raise[at] = change.raise[at].max(ahead);
            }
        }
        let is_out = |id: &DeliveryId| self.messages.get(id).is_some_and(|one| one.is_out);
        let begins = self.begins.iter().filter(|(id, _)| is_out(id));
        change.begun = begins.map(|(id, attempts)| (*id, *attempts)).collect();
        change.returned = std::mem::take(&mut self.returned);
        change.ended = std::mem::take(&mut self.ended);
        change.acks = std::mem::take(&mut self.unwritten);
        (self.is_awaited, self.unwritten_since) = (false, None);
    }

    /// Takes back what a step was to tell, because the store has not done it.
    pub(super) fn regain(&mut self, change: &mut Change) {
        self.returned.append(&mut change.returned);
        self.ended.append(&mut change.ended);
        self.unwritten += std::mem::take(&mut change.acks);
        (self.is_awaited, self.lowering) = (true, false);
        self.unwritten_since.get_or_insert_with(Instant::now);
    }

    /// What the store must write for a change. `None` where it has all of it.
    pub(super) fn step(&self, change: &Change, token: u64, number: u64) -> Option<Step> {
        let mut step = Step {
            token,
            number,
            ends: change.ends.clone(),
            ..Step::default()
        };
        let windows = self.after(change);
        for (at, window) in windows.iter().enumerate() {
            let (stored, passed) = &self.stored[at];
            let cursor = window.cursor();
            if cursor != *stored {
                let passed = window.passed() - passed;
                step.lanes[at] = Some(LaneStep { cursor, passed });
            }
        }
        step.forgets.extend(self.forgets.iter().copied());
        let noted = change.ends.iter().map(Commit::delivery);
        let noted = noted.filter(|id| self.messages.get(id).is_some_and(|one| one.has_note));
        step.forgets.extend(noted);
        for (delivery, delay, message) in &change.kept {
            step.notes.push(Note {
                delivery: *delivery,
                attempts: Attempts::default(),
                kept: Some((*delay, message.clone())),
            });
        }
        let released = change.released.iter();
        let released = released.filter_map(|(id, attempts)| Some((*id, (*attempts)?)));
        let released = released.chain(change.returned.iter().copied());
        let mut noted: Vec<(DeliveryId, Attempts)> = Vec::new();
        for (id, attempts) in released {
            let message = self.messages.get(&id);
            let has_note = message.is_some_and(|one| one.has_note);
            let is_kept = message.is_some_and(|one| one.kind == Kind::Kept);
            if attempts.begun > 0 || has_note && is_kept {
                noted.push((id, attempts));
            } else if has_note {
                // Without a note, an entry after `high` has no attempts.
                step.forgets.push(id);
            }
        }
        if change.lower {
            // The next owner must not take an attempt that has begun for one that has not.
            let begun = self
                .messages
                .iter()
                .filter(|(_, one)| !one.is_out && !one.has_note && one.attempts.begun > 0);
            noted.extend(begun.map(|(id, one)| (*id, one.attempts)));
        }
        for (delivery, attempts) in noted.into_iter().chain(change.begun.iter().copied()) {
            let message = self.messages.get(&delivery);
            let kept = message.filter(|one| one.kind == Kind::Kept);
            let kept = kept.and_then(|one| one.fields.first());
            step.notes.push(Note {
                delivery,
                attempts,
                kept: kept.map(|(_, message)| (Duration::ZERO, message.clone())),
            });
        }
        let is_empty = step.lanes.iter().all(Option::is_none)
            && step.ends.is_empty()
            && step.notes.is_empty()
            && step.forgets.is_empty();
        (!is_empty || change.verifies).then_some(step)
    }

    /// Carries out a change that the store has. Returns whether more messages are ready.
    pub(super) fn apply(&mut self, change: &Change, step: &Step) -> bool {
        let ready = self.lines.ready();
        // The reader waited for the end of a step to let the partition go.
        let stays = std::mem::take(&mut self.lowering) && self.closing.is_none();
        for (at, lane) in step.lanes.iter().enumerate() {
            if let Some(lane) = lane {
                self.stored[at].0.clone_from(&lane.cursor);
                self.stored[at].1 += lane.passed;
            }
        }
        if feeds_redelivery(change) {
            self.looks.expect_redelivery();
        }
        for (id, key) in &change.ended {
            self.lines.end(*id, Some(key));
        }
        for id in change.ends.iter().map(Commit::delivery) {
            if let Some(key) = self.settle(id) {
                self.lines.end(id, Some(&key));
            }
        }
        for id in &step.forgets {
            self.forgets.remove(id);
        }
        for (at, high) in change.raise.into_iter().enumerate() {
            self.windows[at].raise(high);
            if change.lower {
                self.windows[at].lower();
            }
        }
        for (id, delay, message) in &change.kept {
            if let Some(one) = self.messages.get_mut(id) {
                self.bytes -= weight(&one.fields);
                one.fields = vec![(Bytes::from_static(RETRY_FIELD), message.clone())];
                self.bytes += weight(&one.fields);
                (one.kind, one.attempts, one.has_note) = (Kind::Kept, Attempts::default(), true);
                let due = Instant::now() + *delay;
                // A recovery may have put it back meanwhile.
                match std::mem::take(&mut one.is_out) {
                    true => {
                        self.out -= 1;
                        self.waiting.insert((due, *id));
                    }
                    false => one.due = Some(due),
                }
            }
        }
        for (id, attempts) in &change.begun {
            self.begins.remove(id);
            if let Some(one) = self.messages.get_mut(id) {
                (one.attempts, one.has_note) = (*attempts, true);
            }
        }
        for (id, attempts) in &change.returned {
            if let Some(one) = self.messages.get_mut(id) {
                one.release(Some(*attempts));
                self.waiting.insert((Instant::now() + PAUSE, *id));
            }
        }
        for (id, attempts) in change.released.iter().rev() {
            if let Some(one) = self.messages.get_mut(id) {
                one.release(*attempts);
                if std::mem::take(&mut one.is_out) {
                    self.out -= 1;
                    self.lines.put_back(*id);
                }
            }
        }
        // The reader sleeps until the returned ones are due.
        let is_ready = self.lines.ready() > ready || !change.returned.is_empty();
        is_ready || stays && self.lines.ready() > 0
    }
}

impl Message {
    /// Follows a note of the attempts that count after its delivery was given back.
    fn release(&mut self, attempts: Option<Attempts>) {
        if let Some(attempts) = attempts {
            self.attempts = attempts;
            self.has_note = attempts.begun > 0 || self.has_note && self.kind == Kind::Kept;
        }
        if self.attempts.begun > 0 && self.kind == Kind::Fresh {
            self.kind = Kind::TakenOver;
        }
    }
}

/// Whether a step writes a retry that is in the redelivery stream at once.
fn feeds_redelivery(change: &Change) -> bool {
    let is_now =
        |commit: &Commit| matches!(commit.end(), End::Reschedule { delay, .. } if delay.is_zero());
    change.ends.iter().any(is_now)
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::domain::Cursor;
    use crate::store::{Fields, Lane};
    use crate::wire::Decoder;
    use crate::worker::fixture::member;

    fn rules() -> Rules {
        Rules {
            decoder: Decoder::default(),
            lets_pass: false,
            marks_attempts: false,
            ahead: 1,
            pause: Duration::from_secs(60),
        }
    }

    fn id(n: u64) -> EntryId {
        EntryId::new(n, 0)
    }

    fn log(n: u64) -> DeliveryId {
        DeliveryId::new(Lane::Log, id(n))
    }

    /// A state that has handed out two messages.
    fn handed_out() -> State {
        let (member, rules) = (member(), rules());
        let by = (&member, &rules);
        let cursors = [Cursor::default(), Cursor::default()];
        let mut state = State::new(by, cursors, Vec::new(), Vec::new());
        let entries = [1, 2].map(|n| (id(n), Fields::new()));
        state.enter_all(by, Lane::Log, entries.into(), true);
        let out = [state.next(Instant::now()), state.next(Instant::now())];
        assert_eq!(out, [Some(log(1)), Some(log(2))]);
        state
    }

    #[test]
    fn an_ending_of_a_message_that_was_put_back_meanwhile_leaves_it_in_its_line_once() {
        let message = Bytes::from_static(b"again");
        for is_kept in [false, true] {
            let mut state = handed_out();
            let change = match is_kept {
                true => Change {
                    kept: vec![(log(1), Duration::from_secs(60), message.clone())],
                    ..Change::default()
                },
                false => Change {
                    released: vec![(log(1), None)],
                    ..Change::default()
                },
            };
            let step = state.step(&change, 1, 1).unwrap_or_default();
            state.put_back(log(1), None);
            state.apply(&change, &step);
            let now = Instant::now();
            let soon = (!is_kept).then_some(log(1));
            assert_eq!((state.next(now), state.next(now)), (soon, None));
            state.wake(now + Duration::from_secs(120));
            let late = is_kept.then_some(log(1));
            assert_eq!((state.next(now), state.next(now)), (late, None));
        }
    }

    #[test]
    fn what_is_noted_of_deleted_entries_goes_on_from_the_notes_or_is_forgotten() {
        let (member, rules) = (member(), rules());
        let note = |n, kept: bool| Note {
            delivery: log(n),
            attempts: Attempts::from(1),
            kept: kept.then(|| (Duration::ZERO, Bytes::from_static(b"again"))),
        };
        let notes = vec![note(1, true), note(4, false), note(5, true), note(8, true)];
        let cursor = Cursor {
            low: id(2),
            high: id(9),
            done: Vec::new(),
        };
        let marks = vec![log(2), log(6), log(9)];
        let by = (&member, &rules);
        let mut state = State::new(by, [cursor, Cursor::default()], notes, marks);
        // Of the entries 3 to 9 something has deleted 4, 5, 8 and 9.
        let entries = |all: &[u64]| all.iter().map(|n| (id(*n), Fields::new())).collect();
        state.enter_all(by, Lane::Log, entries(&[3, 6]), false);
        state.enter_all(by, Lane::Log, entries(&[7]), true);
        let now = Instant::now();
        let out: Vec<_> = std::iter::from_fn(|| state.next(now)).collect();
        assert_eq!(out, [1, 3, 5, 7, 8].map(log));
        let kinds = out.iter().map(|id| state.messages[id].kind);
        let (kept, taken_over) = (Kind::Kept, Kind::TakenOver);
        assert_eq!(
            kinds.collect::<Vec<_>>(),
            [kept, taken_over, kept, taken_over, kept]
        );
        out.iter().for_each(|id| state.acknowledge(*id));
        let mut change = Change::default();
        state.gather(&mut change);
        let step = state.step(&change, 1, 1).unwrap();
        assert_eq!(step.forgets, [1, 2, 4, 5, 6, 8, 9].map(log));
        let lane = step.lanes[0].clone().unwrap();
        assert_eq!((lane.cursor.low, lane.passed), (id(7), 3));
        state.apply(&change, &step);
        assert!(state.step(&Change::default(), 1, 2).is_none());
    }
}
