//! One partition that this process owns: what was read and not settled, and the steps to the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use tokio::time::Instant;

use crate::api::ownership::Tenure;
use crate::domain::{Cursor, EntryId, Error, Lines, Window};
use crate::store::{
    Attempts, Bell, Commit, DeliveryId, End, Fate, Fetched, Fields, Kind, Lane, LaneStep, Member,
    Note, Ring, Step, Stepped, Store,
};
use crate::wire::Decoder;
use crate::wire::redelivery::{RETRY_FIELD, Redelivery};

/// The most entries of a lane that are read and not settled.
const MOST_ENTRIES: usize = 1024;
/// The same in bytes, of the whole partition.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// The most entries that one call reads.
const MOST_AT_ONCE: usize = 500;

const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

fn place(lane: Lane) -> usize {
    match lane {
        Lane::Log => 0,
        Lane::Redelivery => 1,
    }
}

/// How a subscription treats what it reads.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) decoder: Decoder,
    /// A failed message comes back behind the later ones of its key.
    pub(super) lets_pass: bool,
    /// Every attempt is marked, so an entry without a mark was not begun.
    pub(super) marks_attempts: bool,
}

/// A partition that this process owns.
#[derive(Debug)]
pub(super) struct OwnedPartition {
    store: Arc<dyn Store>,
    member: Member,
    pub(super) tenure: Arc<Tenure>,
    bell: Option<Arc<Bell>>,
    rules: Rules,
    /// One step is under way at a time.
    turn: tokio::sync::Mutex<Turn>,
    state: Mutex<State>,
    /// Another owner has taken the cursor.
    is_fenced_off: AtomicBool,
}

/// The numbers of the steps, and the step whose outcome is unknown.
#[derive(Debug, Default)]
struct Turn {
    last: u64,
    unanswered: Option<(Step, Change)>,
}

#[derive(Debug, Default)]
struct State {
    windows: [Window; 2],
    /// The cursors that the store has, and how many entries `low` had passed then.
    stored: [(Cursor, u64); 2],
    messages: HashMap<DeliveryId, Message>,
    lines: Lines<DeliveryId>,
    /// Messages that failed, by the time when they are due.
    waiting: BTreeSet<(Instant, DeliveryId)>,
    /// Notes of the owners before, for entries that are not read yet.
    notes: HashMap<DeliveryId, Note>,
    /// Up to where an owner before may have begun.
    begun: [Cursor; 2],
    /// The last entry of each lane that was handed out, and how many the next hand-out may bring.
    handed_out: [EntryId; 2],
    ahead: usize,
    bytes: usize,
    out: usize,
    /// The rings of the bell before the last read that found all that there was.
    read_all: Option<u64>,
    closing: bool,
}

#[derive(Debug)]
struct Message {
    fields: Fields,
    key: Option<Box<str>>,
    kind: Kind,
    attempts: Attempts,
    /// Handed to the workers.
    is_out: bool,
    has_note: bool,
    /// Its failure was written by a step whose outcome was unknown, and will be committed once more.
    repeats: bool,
}

/// What a step changes here once the store has done it.
#[derive(Debug, Default)]
struct Change {
    settled: Vec<DeliveryId>,
    ends: Vec<Commit>,
    /// Messages that failed and keep their place.
    kept: Vec<(DeliveryId, Duration, Bytes)>,
    /// Deliveries that are given back, with the attempts that count.
    released: Vec<(DeliveryId, Option<Attempts>)>,
    begun: Vec<(DeliveryId, Attempts)>,
    /// Entries up to these may begin.
    raise: [EntryId; 2],
    /// Nothing has begun that is not settled.
    lower: bool,
}

fn weight(fields: &Fields) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

impl State {
    /// The windows after a change.
    fn after(&self, change: &Change) -> [Window; 2] {
        let mut windows = self.windows.clone();
        for id in &change.settled {
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
    fn restrict(&mut self, change: &mut Change) {
        change.kept.retain(|(id, ..)| {
            let message = self.messages.get_mut(id);
            !message.is_some_and(|one| std::mem::take(&mut one.repeats))
        });
        let is_out = |id: &DeliveryId| self.messages.get(id).is_some_and(|one| one.is_out);
        change.settled.retain(is_out);
        change.settled.sort_unstable();
        change.settled.dedup();
        change.ends.retain(|one| is_out(&one.delivery()));
        change.kept.retain(|(id, ..)| is_out(id));
        change.released.retain(|(id, _)| is_out(id));
        change.begun.retain(|(id, _)| is_out(id));
    }

    /// Lets a step that is written anyway allow the next hand-out, so that a hand-out needs no step of
    /// its own.
    fn look_ahead(&self, change: &mut Change) {
        if change.settled.is_empty() || change.lower {
            return;
        }
        for (at, window) in self.windows.iter().enumerate() {
            let ahead = window.ahead(self.handed_out[at], self.ahead);
            change.raise[at] = change.raise[at].max(ahead);
        }
    }

    /// What the store must write for a change. `None` where it has all of it.
    fn step(&self, change: &Change, token: u64, number: u64) -> Option<Step> {
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
        let noted = change.settled.iter();
        let noted = noted.filter(|id| self.messages.get(id).is_some_and(|one| one.has_note));
        step.forgets.extend(noted.copied());
        for (delivery, delay, message) in &change.kept {
            step.notes.push(Note {
                delivery: *delivery,
                attempts: Attempts::default(),
                kept: Some((*delay, message.clone())),
            });
        }
        let released = change.released.iter();
        let released = released.filter_map(|(id, attempts)| {
            // Without a note, an entry after `high` has no attempts.
            attempts
                .filter(|one| one.begun > 0)
                .map(|attempts| (*id, attempts))
        });
        for (delivery, attempts) in released.chain(change.begun.iter().copied()) {
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
        (!is_empty).then_some(step)
    }

    /// Carries out a change that the store has. Returns whether more messages are ready.
    fn apply(&mut self, change: &Change, step: &Step) -> bool {
        let ready = self.lines.ready();
        for (at, lane) in step.lanes.iter().enumerate() {
            if let Some(lane) = lane {
                self.stored[at].0.clone_from(&lane.cursor);
                self.stored[at].1 += lane.passed;
            }
        }
        for id in &change.settled {
            self.windows[place(id.lane)].settle(id.id);
            if let Some(message) = self.messages.remove(id) {
                self.out -= usize::from(message.is_out);
                self.bytes -= weight(&message.fields);
                self.lines.end(*id, message.key.as_deref());
            }
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
                    one.has_note |= attempts.begun > 0;
                }
                if one.attempts.begun > 0 && one.kind == Kind::Fresh {
                    one.kind = Kind::TakenOver;
                }
                self.lines.put_back(*id);
            }
        }
        self.lines.ready() > ready
    }

    /// Makes messages ready that have waited long enough.
    fn wake(&mut self, now: Instant) {
        while let Some((due, id)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.remove(&(due, id));
            self.lines.put_back(id);
        }
    }

    fn free_entries(&self, lane: Lane) -> usize {
        match self.bytes < MOST_BYTES {
            true => MOST_ENTRIES.saturating_sub(self.windows[place(lane)].len()),
            false => 0,
        }
    }

    /// Enters an entry that was read.
    fn enter(&mut self, member: &Member, rules: &Rules, lane: Lane, id: EntryId, fields: Fields) {
        let (at, delivery) = (place(lane), DeliveryId::new(lane, id));
        let is_done = self.begun[at].is_done(id);
        self.windows[at].enter(id, is_done);
        let note = self.notes.remove(&delivery);
        if is_done {
            return;
        }
        let may_have_begun = self.begun[at].may_have_begun(id);
        let mut message = Message {
            key: key_of(member, rules, lane, id, &fields),
            fields,
            kind: Kind::Fresh,
            attempts: Attempts::default(),
            is_out: false,
            has_note: note.is_some(),
            repeats: false,
        };
        let mut delay = Duration::ZERO;
        match note {
            Some(note) => {
                (message.kind, message.attempts) = (Kind::TakenOver, note.attempts);
                if let Some((left, kept)) = note.kept {
                    message.kind = Kind::Kept;
                    message.fields = vec![(Bytes::from_static(RETRY_FIELD), kept)];
                    delay = left;
                }
            }
            None if may_have_begun => {
                message.kind = Kind::TakenOver;
                message.attempts = u32::from(!rules.marks_attempts).into();
            }
            None => {}
        }
        self.bytes += weight(&message.fields);
        self.lines.enter(delivery, message.key.as_deref());
        if !delay.is_zero() {
            message.has_note = true;
            self.waiting.insert((Instant::now() + delay, delivery));
        }
        self.messages.insert(delivery, message);
    }
}

/// The key of a message; `None` for one without a key, or that does not decode.
fn key_of(
    member: &Member,
    rules: &Rules,
    lane: Lane,
    id: EntryId,
    fields: &Fields,
) -> Option<Box<str>> {
    let topic = member.topic();
    let envelope = match lane {
        Lane::Log => rules.decoder.decode(topic, id, fields).envelope,
        Lane::Redelivery => {
            let redelivery = Redelivery::decode(fields).ok()?;
            let decoded = rules.decoder.decode_retry(topic, id, &redelivery.fields);
            decoded.envelope
        }
    };
    envelope.ok()?.key.map(String::into_boxed_str)
}

/// What the owner of a partition begins with.
pub(super) struct Start {
    pub(super) member: Member,
    pub(super) tenure: Arc<Tenure>,
    pub(super) cursors: [Cursor; 2],
    pub(super) notes: Vec<Note>,
}

impl OwnedPartition {
    pub(super) fn new(store: Arc<dyn Store>, rules: Rules, start: Start) -> Self {
        let Start {
            member,
            tenure,
            cursors,
            notes,
        } = start;
        let state = State {
            windows: [0, 1].map(|at| Window::at(&cursors[at])),
            stored: cursors.clone().map(|cursor| (cursor, 0)),
            notes: notes
                .into_iter()
                .map(|note| (note.delivery, note))
                .collect(),
            begun: cursors,
            ..State::default()
        };
        Self {
            bell: store.bell(&member.at),
            store,
            member,
            tenure,
            rules,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            is_fenced_off: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u16 {
        self.tenure.fence().partition
    }

    /// Writes a change, after one whose outcome is unknown. Returns whether the store has it, and
    /// whether more messages are ready.
    async fn write(&self, mut change: Change) -> Result<(Stepped, bool), Error> {
        let mut turn = self.turn.lock().await;
        let mut ready = false;
        if let Some((step, last)) = turn.unanswered.take() {
            let kept: Vec<_> = last.kept.iter().map(|(id, ..)| *id).collect();
            let sent = self.send(&mut turn, step, last).await?;
            // The caller of that step does not know yet that it is done.
            let mut state = self.state();
            for id in kept {
                if let Some(message) = state.messages.get_mut(&id) {
                    message.repeats = true;
                }
            }
            drop(state);
            match sent {
                (Stepped::Done, more) => ready |= more,
                stale => return Ok(stale),
            }
        }
        if self.is_fenced_off() {
            return Ok((Stepped::Stale, false));
        }
        let step = {
            let mut state = self.state();
            state.restrict(&mut change);
            state.look_ahead(&mut change);
            state.step(&change, self.tenure.fence().token, turn.last + 1)
        };
        match step {
            Some(step) => {
                let (stepped, more) = self.send(&mut turn, step, change).await?;
                Ok((stepped, ready | more))
            }
            None => {
                let more = self.state().apply(&change, &Step::default());
                Ok((Stepped::Done, ready | more))
            }
        }
    }

    async fn send(
        &self,
        turn: &mut Turn,
        step: Step,
        change: Change,
    ) -> Result<(Stepped, bool), Error> {
        // Kept where this future is dropped meanwhile.
        let (step, change) = turn.unanswered.insert((step, change));
        let answer = self.store.owners().step(&self.member, step).await;
        let result = match answer {
            Ok(Stepped::Done) => {
                turn.last = step.number;
                Ok((Stepped::Done, self.state().apply(change, step)))
            }
            Ok(stale) => {
                self.is_fenced_off.store(true, Ordering::SeqCst);
                self.tenure.end();
                Ok((stale, false))
            }
            Err(error) if error.is_outcome_unknown() => return Err(error),
            Err(error) => Err(error),
        };
        turn.unanswered = None;
        result
    }

    /// Hands out up to `max` messages whose turn it is. The store knows before that they may have
    /// begun.
    pub(super) async fn hand_out(&self, max: usize) -> Result<Vec<Fetched>, Error> {
        self.read(max).await?;
        let (taken, change) = {
            let mut state = self.state();
            if state.closing || self.tenure.is_over() {
                return Ok(Vec::new());
            }
            state.wake(Instant::now());
            let mut taken = Vec::new();
            while taken.len() < max
                && let Some(id) = state.lines.next()
            {
                taken.push(id);
            }
            let mut change = Change::default();
            for (at, lane) in LANES.into_iter().enumerate() {
                let ids = taken.iter().filter(|one| one.lane == lane);
                let Some(last) = ids.map(|one| one.id).max() else {
                    continue;
                };
                let window = &state.windows[at];
                if last > window.high() {
                    change.raise[at] = window.ahead(last, max);
                }
                state.handed_out[at] = state.handed_out[at].max(last);
            }
            state.ahead = max;
            for id in &taken {
                if let Some(message) = state.messages.get_mut(id) {
                    message.is_out = true;
                }
            }
            state.out += taken.len();
            (taken, change)
        };
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let is_allowed = change.raise == [EntryId::default(); 2];
        let written = match is_allowed {
            true => Ok((Stepped::Done, false)),
            false => self.write(change).await,
        };
        let mut state = self.state();
        match written {
            Ok((Stepped::Done, _)) if !self.tenure.is_over() => Ok(taken
                .iter()
                .filter_map(|id| self.fetched(&state, *id))
                .collect()),
            failed => {
                for id in taken.iter().rev() {
                    if let Some(message) = state.messages.get_mut(id) {
                        message.is_out = false;
                    }
                    state.lines.put_back(*id);
                }
                state.out -= taken.len();
                failed.map(|_| Vec::new())
            }
        }
    }

    fn fetched(&self, state: &State, id: DeliveryId) -> Option<Fetched> {
        let message = state.messages.get(&id)?;
        Some(Fetched {
            source: place(id.lane) as u16,
            receipt: DeliveryId::new(id.lane, id.id.in_partition(self.number())),
            fields: message.fields.clone(),
            attempts: message.attempts,
            kind: message.kind,
        })
    }

    /// Reads on, unless enough messages are ready or nothing has come since the last read.
    async fn read(&self, max: usize) -> Result<(), Error> {
        loop {
            let rings = self.bell.as_ref().filter(|bell| bell.hears());
            let rings = rings.map(|bell| bell.count(Ring::Entries));
            let reads = {
                let mut state = self.state();
                state.wake(Instant::now());
                let has_read_all = rings.is_some() && state.read_all == rings;
                if has_read_all || state.closing || state.lines.ready() >= max {
                    return Ok(());
                }
                LANES.map(|lane| {
                    // Also for the next hand-out, whose entries may begin with the same step.
                    let room = state.free_entries(lane).min(2 * max).min(MOST_AT_ONCE);
                    (lane, state.windows[place(lane)].last(), room)
                })
            };
            let read = async |(lane, after, room): (Lane, EntryId, usize)| match room {
                0 => Ok(Vec::new()),
                room => {
                    self.store
                        .owners()
                        .read(&self.member.at, lane, after, room)
                        .await
                }
            };
            let [log, redelivery] = reads;
            let found = join(read(log), read(redelivery)).await;
            let found = [found.0?, found.1?];
            let mut state = self.state();
            let mut is_full = false;
            for ((lane, after, room), entries) in reads.into_iter().zip(found) {
                is_full |= room == 0 || entries.len() == room;
                if state.windows[place(lane)].last() != after {
                    // Another call has read the same.
                    continue;
                }
                for (id, fields) in entries {
                    state.enter(&self.member, &self.rules, lane, id, fields);
                }
            }
            if !is_full {
                state.read_all = rings;
                return Ok(());
            }
            // The messages read may all wait behind others of their keys.
            let rooms = LANES.map(|lane| state.free_entries(lane));
            if state.lines.ready() > 0 || rooms.contains(&0) {
                return Ok(());
            }
        }
    }

    /// When the next failed message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().waiting.first().map(|(due, _)| *due)
    }

    /// Ends deliveries: acknowledgements first. Returns the fate of each other commit, whether the
    /// acknowledgements count, and whether more messages are ready.
    pub(super) async fn commit(
        &self,
        acks: Vec<DeliveryId>,
        commits: Vec<Commit>,
    ) -> Result<(Fate, Vec<Fate>, bool), Error> {
        let mut change = Change {
            settled: acks,
            ..Change::default()
        };
        let count = commits.len();
        for commit in commits {
            let id = commit.delivery();
            match commit.end() {
                End::Release { attempts } => change.released.push((id, *attempts)),
                End::Reschedule { delay, redelivery } if !self.rules.lets_pass => {
                    change.kept.push((id, *delay, redelivery.clone()));
                }
                End::Ack => change.settled.push(id),
                End::Reschedule { .. } | End::DeadLetter(_) => {
                    change.settled.push(id);
                    change.ends.push(commit);
                }
            }
        }
        let (stepped, ready) = self.write(change).await?;
        let fate = match stepped {
            Stepped::Done => Fate::Done,
            _ => Fate::Lost,
        };
        Ok((fate, vec![fate; count], ready))
    }

    /// Notes that attempts begin. Returns whether this process may begin them.
    pub(super) async fn begin(&self, begun: Vec<(DeliveryId, Attempts)>) -> Result<bool, Error> {
        let change = Change {
            begun,
            ..Change::default()
        };
        let (stepped, _) = self.write(change).await?;
        Ok(stepped == Stepped::Done && !self.tenure.is_over())
    }

    /// Puts messages back that were handed out and not begun, for a later time.
    pub(super) fn put_back(&self, ids: impl Iterator<Item = DeliveryId>, delay: Duration) {
        let mut state = self.state();
        let due = Instant::now() + delay;
        for id in ids {
            if let Some(message) = state.messages.get_mut(&id).filter(|one| one.is_out) {
                message.is_out = false;
                state.out -= 1;
                match delay.is_zero() {
                    true => state.lines.put_back(id),
                    false => {
                        state.waiting.insert((due, id));
                    }
                }
            }
        }
    }

    /// The deliveries that were handed out and have not ended.
    pub(super) fn out(&self) -> Vec<DeliveryId> {
        let state = self.state();
        let out = state.messages.iter().filter(|(_, one)| one.is_out);
        let number = self.number();
        out.map(|(id, _)| DeliveryId::new(id.lane, id.id.in_partition(number)))
            .collect()
    }

    /// Whether another owner has taken the cursor: nothing more is written here.
    pub(super) fn is_fenced_off(&self) -> bool {
        self.is_fenced_off.load(Ordering::SeqCst)
    }

    /// Says whether nothing more is handed out. Returns what was said before.
    pub(super) fn set_closing(&self, closing: bool) -> bool {
        std::mem::replace(&mut self.state().closing, closing)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// Whether nothing is handed out.
    pub(super) fn is_idle(&self) -> bool {
        self.state().out == 0
    }

    /// Tells the next owner that nothing has begun that is not settled.
    pub(super) async fn let_go(&self) -> Result<(), Error> {
        let change = Change {
            lower: true,
            ..Change::default()
        };
        self.write(change).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::api::Fence;
    use crate::domain::{Codec, Envelope};
    use crate::store::{Capabilities, NewEntry, StartFrom, Taken};
    use crate::wire::{Limits, encode_entry};
    use crate::worker::fixture::member;
    use crate::worker::script::{Failure, Script};

    const STEP: &str = "owners.step";
    const MINUTE: Duration = Duration::from_secs(60);

    /// An owned group in memory, and messages with these keys.
    struct Ground {
        script: Script,
        store: Arc<dyn Store>,
        member: Member,
    }

    impl Ground {
        async fn with(keys: &[Option<&str>]) -> Self {
            let script = Script::default();
            let store = script.before(MemoryStore::new().store(None));
            assert!(matches!(
                store.capabilities(),
                Capabilities {
                    ownership: true,
                    ..
                }
            ));
            let member = member();
            let topics = store.topics();
            topics
                .ensure_topic(member.topic(), <_>::default())
                .await
                .unwrap();
            let start = StartFrom::Beginning;
            store.owners().create(&member.at, start).await.unwrap();
            for (n, key) in keys.iter().enumerate() {
                let mut envelope = Envelope::new("n", &n).unwrap();
                if let Some(key) = key {
                    envelope = envelope.with_key(*key);
                }
                let (name, value) =
                    encode_entry(&envelope, Codec::Json, Limits::default()).unwrap();
                let entry = NewEntry {
                    id: envelope.id(),
                    name,
                    value: value.into(),
                    slot: None,
                };
                let appended = store.log().append(&member.at.partition, &[entry]).await;
                appended.unwrap().remove(0).unwrap();
            }
            Self {
                script,
                store,
                member,
            }
        }

        /// The partition under a token.
        async fn own(&self, token: u64) -> OwnedPartition {
            let taken = self.store.owners().take(&self.member, token).await.unwrap();
            let Taken::Taken { cursors, notes } = taken else {
                panic!("{taken:?}");
            };
            let fence = Fence {
                partition: 0,
                token,
            };
            let tenure = Tenure::new(fence, Instant::now() + MINUTE);
            let rules = Rules {
                decoder: Decoder::default(),
                lets_pass: false,
                marks_attempts: false,
            };
            let start = Start {
                member: self.member.clone(),
                tenure: Arc::new(tenure),
                cursors,
                notes,
            };
            self.script.calls();
            OwnedPartition::new(Arc::clone(&self.store), rules, start)
        }

        fn steps(&self) -> usize {
            let calls = self.script.calls();
            calls.iter().filter(|call| **call == STEP).count()
        }
    }

    fn ids(fetched: &[Fetched]) -> Vec<DeliveryId> {
        fetched.iter().map(|one| one.receipt).collect()
    }

    fn failed(id: DeliveryId) -> Vec<Commit> {
        let message = Bytes::from_static(b"again");
        vec![Commit::reschedule(id, Duration::ZERO, message)]
    }

    #[tokio::test]
    async fn the_next_owner_knows_what_may_have_begun() {
        let ground = Ground::with(&[None; 6]).await;
        let first = ground.own(1).await;
        let out = first.hand_out(2).await.unwrap();
        assert_eq!((out.len(), ground.steps()), (2, 1));
        first.commit(ids(&out[1..]), Vec::new()).await.unwrap();
        // The process dies. The look-ahead counts, too.
        let next = ground.own(2).await;
        let all = next.hand_out(9).await.unwrap();
        let attempts: Vec<u32> = all.iter().map(|one| one.attempts.begun).collect();
        assert_eq!(attempts, [1, 1, 1, 0, 0]);
        assert_eq!(all[0].receipt, out[0].receipt);
        let late = first.commit(ids(&out[..1]), Vec::new()).await.unwrap();
        assert_eq!(late.0, Fate::Lost);
        assert!(first.is_fenced_off() && first.tenure.is_over());
    }

    #[tokio::test]
    async fn an_owner_that_lets_go_leaves_nothing_begun() {
        let ground = Ground::with(&[None; 3]).await;
        let first = ground.own(1).await;
        let out = first.hand_out(2).await.unwrap();
        first.put_back(ids(&out).into_iter(), Duration::ZERO);
        assert!(first.is_idle());
        first.let_go().await.unwrap();
        let all = ground.own(2).await.hand_out(9).await.unwrap();
        assert!(
            all.iter()
                .all(|one| one.attempts.begun == 0 && one.kind == Kind::Fresh)
        );
        assert_eq!(all.len(), 3);
    }

    #[tokio::test]
    async fn the_next_message_of_a_key_waits_until_the_store_has_the_end_of_the_one_before() {
        let ground = Ground::with(&[Some("a"), Some("a"), Some("b")]).await;
        let owner = ground.own(1).await;
        let out = owner.hand_out(9).await.unwrap();
        assert_eq!(out.len(), 2, "one of each key");
        ground.script.fail(STEP, Failure::NotDone);
        owner.commit(ids(&out[..1]), Vec::new()).await.unwrap_err();
        assert_eq!(owner.hand_out(9).await.unwrap().len(), 0);
        owner.commit(ids(&out[..1]), Vec::new()).await.unwrap();
        assert_eq!(owner.hand_out(9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_failed_message_keeps_its_place_for_the_next_owner_too() {
        let ground = Ground::with(&[Some("a"), Some("a")]).await;
        let first = ground.own(1).await;
        let out = first.hand_out(9).await.unwrap();
        let id = out[0].receipt;
        first.commit(Vec::new(), failed(id)).await.unwrap();
        let next = ground.own(2).await;
        let again = next.hand_out(9).await.unwrap();
        assert_eq!((ids(&again), again[0].kind), (vec![id], Kind::Kept));
        assert_eq!(again[0].fields[0].1, Bytes::from_static(b"again"));
        let begun = Attempts::from(1);
        assert!(next.begin(vec![(id, begun)]).await.unwrap());
        let last = ground.own(3).await;
        let again = last.hand_out(9).await.unwrap();
        assert_eq!((again[0].attempts, again[0].kind), (begun, Kind::Kept));
        assert!(
            !next.begin(vec![(id, begun)]).await.unwrap(),
            "it has a new owner"
        );
    }

    #[tokio::test]
    async fn a_step_whose_answer_is_lost_is_done_once() {
        let ground = Ground::with(&[Some("a"), None]).await;
        let owner = ground.own(1).await;
        let out = owner.hand_out(1).await.unwrap();
        let id = out[0].receipt;
        ground.script.fail(STEP, Failure::ReplyLost);
        owner.commit(Vec::new(), failed(id)).await.unwrap_err();
        // Another call comes before the repetition, and the message is handed out again.
        let other = owner.hand_out(1).await.unwrap();
        owner.commit(ids(&other), Vec::new()).await.unwrap();
        let again = owner.hand_out(9).await.unwrap();
        assert_eq!(ids(&again), [id]);
        let (_, fates, _) = owner.commit(Vec::new(), failed(id)).await.unwrap();
        assert_eq!(fates, [Fate::Done]);
        assert_eq!(owner.out(), [id], "the attempt under way goes on");
        owner.commit(vec![id], Vec::new()).await.unwrap();
        assert!(owner.is_idle());
    }

    #[tokio::test]
    async fn nothing_is_handed_out_after_the_time_of_the_owner() {
        let ground = Ground::with(&[None; 2]).await;
        let owner = ground.own(1).await;
        let out = owner.hand_out(1).await.unwrap();
        owner.tenure.end();
        assert_eq!(owner.hand_out(9).await.unwrap().len(), 0);
        assert!(!owner.begin(vec![(out[0].receipt, 1.into())]).await.unwrap());
        // Nobody has taken the partition, so finished work counts.
        let (fate, ..) = owner.commit(ids(&out), Vec::new()).await.unwrap();
        assert_eq!(fate, Fate::Done);
    }
}
