//! What the owner of a partition has read and not settled, and what the store does not know of it yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Rules;
use crate::domain::{Cursor, EntryId, Lines, Window};
use crate::store::{
    Attempts, Commit, DeliveryId, End, Fields, Kind, Lane, LaneStep, Member, Note, Step,
};
use crate::wire::redelivery::{RETRY_FIELD, Redelivery};

/// The most entries of a lane that are read and not settled.
pub(crate) const MOST_ENTRIES: usize = 1024;
/// The most entries from the first unsettled one to the last one read.
const LONGEST: usize = 32 * 1024;
/// The same in bytes, of the whole partition.
pub(crate) const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The most acknowledgements that wait for a step.
const MOST_UNWRITTEN: usize = 250;

pub(super) const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

pub(super) fn place(lane: Lane) -> usize {
    match lane {
        Lane::Log => 0,
        Lane::Redelivery => 1,
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) windows: [Window; 2],
    /// The cursors that the store has, and how many entries `low` had passed then.
    stored: [(Cursor, u64); 2],
    pub(super) messages: HashMap<DeliveryId, Message>,
    pub(super) lines: Lines<DeliveryId>,
    /// Messages whose turn it is and that are not due, by the time when they are.
    waiting: BTreeSet<(Instant, DeliveryId)>,
    /// Notes of the owners before, for entries that are not read yet.
    notes: [BTreeMap<EntryId, Note>; 2],
    /// Entries not read yet that effects have settled.
    marks: [BTreeSet<EntryId>; 2],
    /// Up to where an owner before may have begun.
    begun: [Cursor; 2],
    /// Messages with keys that are acknowledged, and the store does not know it yet: the later ones of
    /// their keys wait.
    ended: Vec<(DeliveryId, Box<str>)>,
    /// Messages whose notes or marks the store no longer needs.
    forgets: BTreeSet<DeliveryId>,
    /// How many acknowledgements the store does not know yet.
    pub(super) unwritten: usize,
    /// Since when the first of them waits.
    pub(super) unwritten_since: Option<Instant>,
    /// A later message waits for one of them, or a step has failed: they are written at once.
    pub(super) is_awaited: bool,
    /// The last entry of each lane that was handed out, and how many the next hand-out may bring.
    pub(super) handed_out: [EntryId; 2],
    pub(super) ahead: usize,
    bytes: usize,
    pub(super) out: usize,
    /// Since when nothing more is handed out, because another process gets the partition.
    pub(super) closing: Option<Instant>,
    /// A step says that nothing has begun, and the store may have done it: nothing is handed out.
    pub(super) lowering: bool,
    pub(super) looks: Looks,
}

/// What the last reads have found.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The rings of the bell before the last read that found all entries.
    pub(super) read_all: Option<u64>,
    /// The same of the redelivery stream.
    pub(super) read_redeliveries: Option<u64>,
    /// When to look at the redelivery stream while no bell rings for it.
    pub(super) redeliveries_at: Option<Instant>,
}

impl Looks {
    /// Whether the redelivery stream may have more entries.
    pub(super) fn may_have_redeliveries(&self, rings: Option<u64>, now: Instant) -> bool {
        match rings {
            Some(_) => self.read_redeliveries != rings,
            None => self.redeliveries_at.is_none_or(|at| now >= at),
        }
    }

    /// Notes a step that has written a retry without a delay.
    fn expect_redelivery(&mut self) {
        (self.read_redeliveries, self.redeliveries_at) = (None, None);
    }
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: Fields,
    key: Option<Box<str>>,
    pub(super) kind: Kind,
    pub(super) attempts: Attempts,
    /// It failed, and is not handed out before.
    due: Option<Instant>,
    /// Handed to the workers.
    pub(super) is_out: bool,
    has_note: bool,
    /// Its failure was written by a step whose outcome was unknown, and will be committed once more.
    pub(super) repeats: bool,
}

/// What a step changes here once the store has done it.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Messages that end with a retry or a dead letter.
    pub(super) ends: Vec<Commit>,
    /// Messages that failed and keep their place.
    pub(super) kept: Vec<(DeliveryId, Duration, Bytes)>,
    /// Deliveries that are given back, with the attempts that count.
    pub(super) released: Vec<(DeliveryId, Option<Attempts>)>,
    pub(super) begun: Vec<(DeliveryId, Attempts)>,
    /// Entries up to these may begin.
    pub(super) raise: [EntryId; 2],
    /// Nothing has begun that is not settled.
    pub(super) lower: bool,
    /// Asks whether this process still owns the partition, though there is nothing to write.
    pub(super) verifies: bool,
    /// Acknowledged before, with their keys.
    pub(super) ended: Vec<(DeliveryId, Box<str>)>,
    /// How many acknowledgements the step tells the store.
    pub(super) acks: usize,
}

fn weight(fields: &Fields) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

impl State {
    /// The state of an owner that begins where those before have come.
    pub(super) fn new(
        (member, rules): (&Member, &Rules),
        cursors: [Cursor; 2],
        notes: Vec<Note>,
        marks: Vec<DeliveryId>,
    ) -> Self {
        let mut state = Self {
            windows: [0, 1].map(|at| Window::at(&cursors[at])),
            stored: cursors.clone().map(|cursor| (cursor, 0)),
            begun: cursors,
            ..Self::default()
        };
        for note in notes {
            let DeliveryId { lane, id } = note.delivery;
            state.notes[place(lane)].insert(id, note);
        }
        for DeliveryId { lane, id } in marks {
            state.marks[place(lane)].insert(id);
        }
        for lane in LANES {
            let low = state.windows[place(lane)].last();
            state.enter_missing((member, rules), lane, |id| id <= low);
        }
        state
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
        change.begun.retain(|(id, _)| is_out(id));
    }

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

    /// Settles a message in its window. Returns its key.
    fn settle(&mut self, id: DeliveryId) -> Option<Box<str>> {
        self.windows[place(id.lane)].settle(id.id);
        let message = self.messages.remove(&id)?;
        self.out -= usize::from(message.is_out);
        self.bytes -= weight(&message.fields);
        if message.has_note {
            self.forgets.insert(id);
        }
        message.key
    }

    /// Adds to a change what is to be written anyway: acknowledgements, and the leave to begin for the
    /// next hand-out, so that a hand-out needs no step of its own.
    pub(super) fn gather(&mut self, change: &mut Change) {
        let settles = self.unwritten > 0 || !change.ends.is_empty();
        if settles && !change.lower {
            for (at, window) in self.windows.iter().enumerate() {
                let ahead = window.ahead(self.handed_out[at], self.ahead);
                change.raise[at] = change.raise[at].max(ahead);
            }
        }
        change.ended = std::mem::take(&mut self.ended);
        change.acks = std::mem::take(&mut self.unwritten);
        (self.is_awaited, self.unwritten_since) = (false, None);
    }

    /// Takes back what a step was to tell, because the store has not done it.
    pub(super) fn regain(&mut self, change: &mut Change) {
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
        self.lowering = false;
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
                one.is_out = false;
                self.out -= 1;
                self.waiting.insert((Instant::now() + *delay, *id));
            }
        }
        for (id, attempts) in &change.begun {
            if let Some(one) = self.messages.get_mut(id) {
                (one.attempts, one.has_note) = (*attempts, true);
            }
        }
        for (id, attempts) in change.released.iter().rev() {
            if let Some(one) = self.messages.get_mut(id) {
                one.is_out = false;
                self.out -= 1;
                if let Some(attempts) = attempts {
                    one.attempts = *attempts;
                    one.has_note = attempts.begun > 0 || one.has_note && one.kind == Kind::Kept;
                }
                if one.attempts.begun > 0 && one.kind == Kind::Fresh {
                    one.kind = Kind::TakenOver;
                }
                self.lines.put_back(*id);
            }
        }
        self.lines.ready() > ready
    }

    /// Puts a message back that was handed out and not begun, for a later time.
    pub(super) fn put_back(&mut self, id: DeliveryId, delay: Duration) {
        let Some(message) = self.messages.get_mut(&id).filter(|one| one.is_out) else {
            return;
        };
        message.is_out = false;
        self.out -= 1;
        match delay.is_zero() {
            true => self.lines.put_back(id),
            false => {
                self.waiting.insert((Instant::now() + delay, id));
            }
        }
    }

    /// Makes messages ready that have waited long enough.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((due, id)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.remove(&(due, id));
            self.lines.put_back(id);
        }
    }

    /// When the next message that waits is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Takes the next message that is ready and due.
    pub(super) fn next(&mut self, now: Instant) -> Option<DeliveryId> {
        loop {
            let id = self.lines.next()?;
            let Some(message) = self.messages.get_mut(&id).filter(|one| !one.is_out) else {
                continue;
            };
            match message.due.take().filter(|due| *due > now) {
                Some(due) => {
                    self.waiting.insert((due, id));
                }
                None => {
                    message.is_out = true;
                    self.out += 1;
                    return Some(id);
                }
            }
        }
    }

    pub(super) fn free_entries(&self, lane: Lane) -> usize {
        match self.bytes < MOST_BYTES {
            true => {
                let window = &self.windows[place(lane)];
                let room = MOST_ENTRIES.saturating_sub(window.unsettled());
                room.min(LONGEST.saturating_sub(window.len()))
            }
            false => 0,
        }
    }

    /// Enters the entries of one read, in their order. `is_all`: the lane has no more of them.
    pub(super) fn enter_all(
        &mut self,
        by: (&Member, &Rules),
        lane: Lane,
        entries: Vec<(EntryId, Fields)>,
        is_all: bool,
    ) {
        for (id, fields) in entries {
            self.enter_missing(by, lane, |noted| noted < id);
            self.enter(by, lane, id, fields);
        }
        if is_all {
            self.enter_missing(by, lane, |_| true);
        }
    }

    /// Enters an entry that was read.
    fn enter(&mut self, by: (&Member, &Rules), lane: Lane, id: EntryId, fields: Fields) {
        let (at, delivery) = (place(lane), DeliveryId::new(lane, id));
        let is_marked = self.marks[at].remove(&id);
        let is_done = is_marked || self.begun[at].is_done(id);
        self.windows[at].enter(id, is_done);
        let note = self.notes[at].remove(&id);
        if is_done {
            if is_marked || note.is_some() {
                self.forgets.insert(delivery);
            }
            return;
        }
        let begun = self.begun[at].may_have_begun(id) && !by.1.marks_attempts;
        let is_taken_over = self.begun[at].may_have_begun(id);
        let mut message = Message {
            key: key_of(by, delivery, &fields, false),
            fields,
            kind: if is_taken_over {
                Kind::TakenOver
            } else {
                Kind::Fresh
            },
            attempts: u32::from(begun).into(),
            due: None,
            is_out: false,
            has_note: note.is_some(),
            repeats: false,
        };
        if let Some(note) = note {
            (message.kind, message.attempts) = (Kind::TakenOver, note.attempts);
            message.keep(note.kept);
        }
        self.add(delivery, message);
    }

    /// Enters what the store has notes of and no entry: something deleted the entries. A message that
    /// failed is in its note as a whole, and goes on from there.
    fn enter_missing(
        &mut self,
        by: (&Member, &Rules),
        lane: Lane,
        is_missing: impl Fn(EntryId) -> bool,
    ) {
        let at = place(lane);
        while let Some(first) = self.notes[at].first_entry()
            && is_missing(*first.key())
        {
            let note = first.remove();
            if note.kept.is_none() {
                self.forgets.insert(note.delivery);
                continue;
            }
            let mut message = Message {
                fields: Fields::new(),
                key: None,
                kind: Kind::Kept,
                attempts: note.attempts,
                due: None,
                is_out: false,
                has_note: true,
                repeats: false,
            };
            message.keep(note.kept);
            message.key = key_of(by, note.delivery, &message.fields, true);
            self.add(note.delivery, message);
        }
        while let Some(id) = self.marks[at].first().copied()
            && is_missing(id)
        {
            self.marks[at].remove(&id);
            self.forgets.insert(DeliveryId::new(lane, id));
        }
    }

    fn add(&mut self, id: DeliveryId, message: Message) {
        self.bytes += weight(&message.fields);
        self.lines.enter(id, message.key.as_deref());
        self.messages.insert(id, message);
    }
}

/// Whether a step writes a retry that is in the redelivery stream at once.
fn feeds_redelivery(change: &Change) -> bool {
    let is_now =
        |commit: &Commit| matches!(commit.end(), End::Reschedule { delay, .. } if delay.is_zero());
    change.ends.iter().any(is_now)
}

impl Message {
    /// Takes the message as its failure left it.
    fn keep(&mut self, kept: Option<(Duration, Bytes)>) {
        if let Some((left, kept)) = kept {
            self.kind = Kind::Kept;
            self.fields = vec![(Bytes::from_static(RETRY_FIELD), kept)];
            self.due = (!left.is_zero()).then(|| Instant::now() + left);
        }
    }
}

/// The key of a message; `None` for one without a key, or that does not decode. `is_redelivery`: the
/// fields are those of a redelivery although the message comes from the log.
fn key_of(
    (member, rules): (&Member, &Rules),
    id: DeliveryId,
    fields: &Fields,
    is_redelivery: bool,
) -> Option<Box<str>> {
    let topic = member.topic();
    let envelope = if is_redelivery || id.lane == Lane::Redelivery {
        let redelivery = Redelivery::decode(fields).ok()?;
        let decoded = rules.decoder.decode_retry(topic, id.id, &redelivery.fields);
        decoded.envelope
    } else {
        rules.decoder.decode(topic, id.id, fields).envelope
    };
    envelope.ok()?.key.map(String::into_boxed_str)
}

#[cfg(test)]
mod tests {
    use super::*;
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
