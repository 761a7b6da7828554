//! What the owner of a partition has read and not settled: the windows, the lines of the keys, and what is
//! handed out. `step.rs` tells the store of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Rules;
use crate::domain::{Cursor, EntryId, Error, ErrorKind, Lines, Window};
use crate::store::{Attempts, DeliveryId, Fields, Kind, Lane, Member, Note};
use crate::wire::redelivery::{RETRY_FIELD, Redelivery};

/// The most entries of a lane that are read and not settled.
pub(crate) const MOST_ENTRIES: usize = 1024;
/// The most entries from the first unsettled one to the last one read.
const LONGEST: usize = 32 * 1024;
/// The same in bytes, of the whole partition.
pub(crate) const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The most entries of the first read, which cannot know how heavy they are.
const FIRST: usize = 16;
/// How long a call may take before its partition counts as silent, at least.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// How often an owner looks although nothing has rung.
const LOOK_EVERY: Duration = Duration::from_secs(50);

pub(super) const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

pub(super) fn place(lane: Lane) -> usize {
    match lane {
        Lane::Log => 0,
        Lane::Redelivery => 1,
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a call has failed because the store does not answer. A server that refuses a call does answer.
pub(crate) fn is_silence(error: &Error) -> bool {
    error.is_outcome_unknown() || error.kind() == ErrorKind::Unavailable
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) windows: [Window; 2],
    /// The cursors that the store has, and how many entries `low` had passed then.
    pub(super) stored: [(Cursor, u64); 2],
    pub(super) messages: HashMap<DeliveryId, Message>,
    pub(super) lines: Lines<DeliveryId>,
    /// Messages whose turn it is and that are not due, by the time when they are.
    pub(super) waiting: BTreeSet<(Instant, DeliveryId)>,
    /// Notes of the owners before, for entries that are not read yet.
    notes: [BTreeMap<EntryId, Note>; 2],
    /// Entries not read yet that effects have settled.
    marks: [BTreeSet<EntryId>; 2],
    /// Up to where an owner before may have begun.
    begun: [Cursor; 2],
    /// Messages with keys that are acknowledged, and the store does not know it yet: the later ones of
    /// their keys wait.
    pub(super) ended: Vec<(DeliveryId, Box<str>)>,
    /// Messages that were put back after their attempts may have been marked, and the attempts that count: the
    /// next step tells the store.
    pub(super) returned: Vec<(DeliveryId, Attempts)>,
    /// Messages whose notes or marks the store no longer needs.
    pub(super) forgets: BTreeSet<DeliveryId>,
    /// How many acknowledgements the store does not know yet.
    pub(super) unwritten: usize,
    /// Since when the first of them waits.
    pub(super) unwritten_since: Option<Instant>,
    /// A later message waits for one of them, or a step has failed: they are written at once.
    pub(super) is_awaited: bool,
    /// Attempts that wait for a step before their handlers begin.
    pub(super) begins: BTreeMap<DeliveryId, Attempts>,
    /// The last entry of each lane that was handed out, and how many the next hand-out may bring.
    pub(super) handed_out: [EntryId; 2],
    pub(super) ahead: usize,
    pub(super) bytes: usize,
    /// How many bytes an entry has, by the last reads; 0 before the first.
    average: usize,
    pub(super) out: usize,
    /// Since when nothing more is handed out, because another process gets the partition.
    pub(super) closing: Option<Instant>,
    /// A step says that nothing has begun, and the store may have done it: nothing is handed out.
    pub(super) lowering: bool,
    /// From when the partition counts as silent, unless a step is answered before: nothing is handed out,
    /// because its handlers would wait for the store and keep the workers from other partitions.
    pub(super) silent_from: Option<Instant>,
    /// How long the last step took that the store has answered.
    took: Duration,
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
    /// When the next read looks at everything, because a ring may be lost.
    again_at: Option<Instant>,
}

impl Looks {
    /// Notes the rings before a read that found all entries.
    pub(super) fn note_read_all(&mut self, rings: Option<u64>, now: Instant) {
        self.read_all = rings;
        self.again_at
            .get_or_insert_with(|| now + LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 4.0));
    }

    /// Whether nothing has come since a read that found all entries.
    pub(super) fn has_read_all(&mut self, rings: Option<u64>, now: Instant) -> bool {
        if self.again_at.take_if(|at| now >= *at).is_some() {
            (self.read_all, self.read_redeliveries) = (None, None);
        }
        rings.is_some() && self.read_all == rings
    }

    /// Whether the redelivery stream may have more entries.
    pub(super) fn may_have_redeliveries(&self, rings: Option<u64>, now: Instant) -> bool {
        match rings {
            Some(_) => self.read_redeliveries != rings,
            None => self.redeliveries_at.is_none_or(|at| now >= at),
        }
    }

    /// Notes a step that has written a retry without a delay.
    pub(super) fn expect_redelivery(&mut self) {
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
    pub(super) due: Option<Instant>,
    /// Handed to the workers.
    pub(super) is_out: bool,
    pub(super) has_note: bool,
    /// Its failure was written by a step whose outcome was unknown, and will be committed once more.
    pub(super) repeats: bool,
}

pub(super) fn weight(fields: &Fields) -> usize {
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

    /// Settles a message in its window. Returns its key.
    pub(super) fn settle(&mut self, id: DeliveryId) -> Option<Box<str>> {
        self.windows[place(id.lane)].settle(id.id);
        let message = self.messages.remove(&id)?;
        self.out -= usize::from(message.is_out);
        self.bytes -= weight(&message.fields);
        if message.has_note {
            self.forgets.insert(id);
        }
        message.key
    }

    /// Notes that a step is sent, and whether it lowers what has begun.
    pub(super) fn expect_answer(&mut self, lowers: bool, now: Instant) {
        self.lowering = lowers;
        self.silent_from.get_or_insert(now + self.patience());
    }

    /// How long a call may take before the partition counts as silent. A server that is always slow does answer.
    pub(super) fn patience(&self) -> Duration {
        PATIENCE.max(2 * self.took)
    }

    /// Notes that the store has done a step, and how long it took. Returns whether the partition was silent.
    pub(super) fn note_answer(&mut self, took: Duration, now: Instant) -> bool {
        self.took = took;
        let from = self.silent_from.take();
        from.is_some_and(|from| from <= now)
    }

    /// Notes that a step has failed.
    pub(super) fn note_failure(&mut self, error: &Error) {
        self.silent_from = is_silence(error).then(Instant::now);
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_from.is_some_and(|from| from <= now)
    }

    /// Puts a message back that was handed out and not begun, with the attempts before if they are known.
    pub(super) fn put_back(&mut self, id: DeliveryId, attempts: Option<Attempts>) {
        if !self.take_out(id) {
            return;
        }
        if let (Some(message), Some(attempts)) = (self.messages.get_mut(&id), attempts) {
            message.attempts = attempts;
        }
        self.lines.put_back(id);
    }

    /// Puts a message back that was handed out and cannot begin before a time.
    pub(super) fn put_back_later(&mut self, id: DeliveryId, due: Instant) {
        if self.take_out(id) {
            self.waiting.insert((due, id));
        }
    }

    /// Takes a message from those that are handed out. Returns whether it was one.
    pub(super) fn take_out(&mut self, id: DeliveryId) -> bool {
        let Some(message) = self.messages.get_mut(&id).filter(|one| one.is_out) else {
            return false;
        };
        message.is_out = false;
        if message.attempts.begun > 0 && message.kind == Kind::Fresh {
            message.kind = Kind::TakenOver;
        }
        self.out -= 1;
        true
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

    /// How many entries of a lane the next read may bring, if they are as heavy as those before.
    pub(super) fn free_entries(&self, lane: Lane) -> usize {
        let free = MOST_BYTES.saturating_sub(self.bytes);
        if free == 0 {
            return 0;
        }
        let window = &self.windows[place(lane)];
        let room = MOST_ENTRIES.saturating_sub(window.unsettled());
        let room = room.min(LONGEST.saturating_sub(window.len()));
        room.min(free.checked_div(self.average).unwrap_or(FIRST).max(1))
    }

    /// Follows larger entries at once and smaller ones slowly.
    fn note_weight(&mut self, entries: &[(EntryId, Fields)]) {
        let total: usize = entries.iter().map(|(_, fields)| weight(fields)).sum();
        if let Some(mean) = total.checked_div(entries.len()) {
            let slowly = self.average - self.average.saturating_sub(mean) / 4;
            self.average = mean.max(slowly).max(1);
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
        self.note_weight(&entries);
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

    #[test]
    fn a_read_brings_no_more_bytes_than_there_is_room_for() {
        let rules = Rules {
            decoder: Decoder::default(),
            lets_pass: false,
            marks_attempts: false,
            ahead: 1,
            pause: Duration::from_secs(60),
        };
        let member = member();
        let by = (&member, &rules);
        let mut state = State::new(by, <[Cursor; 2]>::default(), Vec::new(), Vec::new());
        assert_eq!(state.free_entries(Lane::Log), FIRST);
        let heavy = |n: u64| {
            let value = Bytes::from(vec![b'x'; 1024 * 1024]);
            let field = (Bytes::from_static(b"json"), value);
            (EntryId::new(n, 0), vec![field])
        };
        state.enter_all(by, Lane::Log, vec![heavy(1), heavy(2)], false);
        assert_eq!(state.free_entries(Lane::Log), 5);
        state.enter_all(by, Lane::Log, (3..=7).map(heavy).collect(), false);
        assert_eq!(state.free_entries(Lane::Log), 1, "one fits at least");
        state.enter_all(by, Lane::Log, vec![heavy(8)], false);
        assert_eq!(state.free_entries(Lane::Log), 0);
    }

    #[test]
    fn an_owner_looks_though_no_ring_came() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        assert!(!looks.has_read_all(Some(3), now));
        looks.note_read_all(Some(3), now);
        looks.read_redeliveries = Some(3);
        assert!(looks.has_read_all(Some(3), now));
        assert!(!looks.has_read_all(Some(4), now));
        assert!(!looks.may_have_redeliveries(Some(3), now));
        let later = now + LOOK_EVERY;
        assert!(!looks.has_read_all(Some(3), later));
        assert!(looks.may_have_redeliveries(Some(3), later));
    }
}
