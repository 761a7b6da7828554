//! One partition that this process owns: what was read and not settled, and the steps to the store.

mod hand_out;
mod state;
mod step;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub(crate) use self::state::{MOST_BYTES, MOST_ENTRIES, is_silence};
use self::state::{State, lock};
use self::step::{Begins, Change};
use crate::api::ownership::Tenure;
use crate::domain::{Cursor, Error, ErrorKind, describe};
use crate::store::{
    Attempts, Bell, Commit, DeliveryId, End, Fate, Member, Note, Rings, Step, Stepped, Store,
};
use crate::wire::Decoder;
use crate::worker::fault::Faults;

/// How a subscription treats what it reads.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) decoder: Decoder,
    /// A failed message comes back behind the later ones of its key.
    pub(super) lets_pass: bool,
    /// Every attempt is marked, so an entry without a mark was not begun.
    pub(super) marks_attempts: bool,
    /// How many entries may begin without another step, beyond those that are handed out.
    pub(super) ahead: usize,
    /// How often to look while the store does not tell of changes.
    pub(super) pause: Duration,
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
    /// Rings when a step has noted attempts.
    noted: Rings,
    /// Of reading and of writing acknowledgements.
    pub(super) faults: Faults,
    /// Another owner has taken the cursor.
    is_fenced_off: AtomicBool,
}

/// The numbers of the steps, and the step whose outcome is unknown.
#[derive(Debug, Default)]
struct Turn {
    last: u64,
    unanswered: Option<(Step, Change)>,
    /// A try of that step had an unknown outcome.
    is_unknown: bool,
}

/// Whether the server refused a step in its script: it is certainly not done, by no try.
fn is_of_full_memory(error: &Error) -> bool {
    error.kind() == ErrorKind::Refused && describe(error).contains("OOM")
}

/// What the owner of a partition begins with.
pub(super) struct Start {
    pub(super) member: Member,
    pub(super) tenure: Arc<Tenure>,
    pub(super) cursors: [Cursor; 2],
    pub(super) notes: Vec<Note>,
    /// Messages that effects have settled.
    pub(super) marks: Vec<DeliveryId>,
}

impl OwnedPartition {
    pub(super) fn new(store: Arc<dyn Store>, rules: Rules, start: Start) -> Self {
        let Start {
            member,
            tenure,
            cursors,
            notes,
            marks,
        } = start;
        let state = State::new((&member, &rules), cursors, notes, marks);
        Self {
            bell: store.bell(&member.at),
            store,
            member,
            tenure,
            rules,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            noted: Rings::default(),
            faults: Faults::default(),
            is_fenced_off: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn number(&self) -> u16 {
        self.tenure.fence().partition
    }

    /// Writes a change, after one whose outcome is unknown. Returns whether the store has it, and
    /// whether more messages are ready.
    async fn write(&self, change: Change) -> Result<(Stepped, bool), Error> {
        let mut turn = self.turn.lock().await;
        self.write_in(&mut turn, change).await
    }

    async fn write_in(
        &self,
        turn: &mut Turn,
        mut change: Change,
    ) -> Result<(Stepped, bool), Error> {
        let mut ready = false;
        if let Some((step, last)) = turn.unanswered.take() {
            let kept: Vec<_> = last.kept.iter().map(|(id, ..)| *id).collect();
            let sent = self.send(turn, step, last).await?;
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
            // What a silent partition is asked, though there is nothing to write.
            change.verifies |= state.silent_from.is_some();
            if !self.keeps_on(&state) {
                // It is given up by the time that this step has its turn.
                change.raise = <_>::default();
            }
            state.restrict(&mut change);
            state.gather(&mut change);
            if self.tenure.is_over() {
                // No handler begins any more.
                change.begun.clear();
            }
            state.step(&change, self.tenure.fence().token, turn.last + 1)
        };
        match step {
            Some(step) => {
                let (stepped, more) = self.send(turn, step, change).await?;
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
        // Kept where this future is dropped meanwhile: then the store may have done the step.
        let (step, change) = turn.unanswered.insert((step, change));
        let was_unknown = std::mem::replace(&mut turn.is_unknown, true);
        let sent = Instant::now();
        self.state().expect_answer(change.lower, sent);
        let answer = self.store.owners().step(&self.member, step).await;
        let result = match answer {
            Ok(Stepped::Done) => {
                turn.last = step.number;
                let mut state = self.state();
                let was_silent = state.note_answer(sent.elapsed(), Instant::now());
                let ready = state.apply(change, step) | was_silent;
                drop(state);
                if !change.begun.is_empty() {
                    self.noted.ring();
                }
                Ok((Stepped::Done, ready))
            }
            Ok(stale) => {
                self.end();
                Ok((stale, false))
            }
            Err(error) => {
                let mut state = self.state();
                state.note_failure(&error);
                turn.is_unknown = was_unknown || error.is_outcome_unknown();
                if error.kind() == ErrorKind::NotFound {
                    // The cursor is gone: this process claims the partition again.
                    drop(state);
                    self.end();
                } else if turn.is_unknown && !is_of_full_memory(&error) {
                    // Also where this try did nothing: an earlier one may have done the step.
                    state.is_awaited = true;
                    return Err(error);
                } else {
                    state.regain(change);
                }
                Err(error)
            }
        };
        (turn.unanswered, turn.is_unknown) = (None, false);
        result
    }

    /// Writes nothing more: the store has refused this owner.
    fn end(&self) {
        self.is_fenced_off.store(true, Ordering::SeqCst);
        self.tenure.end();
    }

    /// When the next failed message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.state().next_due()
    }

    /// Ends deliveries: acknowledgements first. Returns the fate of each other commit, whether the
    /// acknowledgements count, and whether more messages are ready.
    ///
    /// Acknowledgements for which no later message waits are written with the next step, which
    /// [`flush`](Self::flush) brings at the latest.
    pub(super) async fn commit(
        &self,
        acks: Vec<DeliveryId>,
        commits: Vec<Commit>,
    ) -> Result<(Fate, Vec<Fate>, bool), Error> {
        let mut change = Change::default();
        let count = commits.len();
        for commit in commits {
            let id = commit.delivery();
            match commit.end() {
                End::Release { attempts } => change.released.push((id, *attempts)),
                End::Reschedule { delay, redelivery } if !self.rules.lets_pass => {
                    change.kept.push((id, *delay, redelivery.clone()));
                }
                _ => change.ends.push(commit),
            }
        }
        let is_urgent = {
            let mut state = self.state();
            acks.into_iter().for_each(|id| state.acknowledge(id));
            count > 0 || state.is_urgent()
        };
        let (stepped, ready) = match is_urgent {
            true => self.write(change).await?,
            false if self.is_fenced_off() => (Stepped::Stale, false),
            false => (Stepped::Done, false),
        };
        let fate = match stepped {
            Stepped::Done => Fate::Done,
            _ => Fate::Lost,
        };
        Ok((fate, vec![fate; count], ready))
    }

    /// Whether the store does not know of an acknowledgement yet, or something waits for a step.
    pub(super) fn is_unwritten(&self) -> bool {
        let state = self.state();
        let waits = state.unwritten > 0 || state.is_awaited || self.is_to_be_asked(&state);
        waits && !self.is_fenced_off()
    }

    /// Whether nothing is handed out because the store does not answer.
    pub(super) fn is_silent(&self) -> bool {
        self.state().is_silent(Instant::now())
    }

    /// Hands nothing more out until a step has an answer.
    pub(super) fn note_silence(&self) {
        self.state().silent_from = Some(Instant::now());
    }

    /// How long a call may take before the partition counts as silent.
    pub(super) fn patience(&self) -> Duration {
        self.state().patience()
    }

    /// Whether the last step had no answer, and no other is under way.
    fn is_to_be_asked(&self, state: &State) -> bool {
        state.silent_from.is_some() && self.turn.try_lock().is_ok()
    }

    /// Asks the store whether this process still owns the partition, and ends its time where not.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        let change = Change {
            verifies: true,
            ..Change::default()
        };
        self.write(change).await.map(|_| ())
    }

    /// Whether an acknowledgement has waited for others so long, or a message waits for it.
    pub(super) fn is_overdue(&self, gathers: Duration) -> bool {
        let state = self.state();
        let waited = state
            .unwritten_since
            .is_some_and(|since| since.elapsed() >= gathers);
        let waits = waited || state.is_awaited || self.is_to_be_asked(&state);
        waits && !self.is_fenced_off()
    }

    /// How many acknowledgements the store may not know: those that no step has told, and those of a step
    /// without an answer.
    pub(super) fn unwritten(&self) -> u64 {
        let turn = self.turn.try_lock();
        let unanswered = turn.as_ref().ok().and_then(|turn| turn.unanswered.as_ref());
        let unanswered = unanswered.map_or(0, |(_, change)| change.acks);
        (self.state().unwritten + unanswered) as u64
    }

    /// Ends deliveries whose effects the store has written with them.
    pub(super) fn end_marked(&self, ids: impl Iterator<Item = DeliveryId>) {
        let mut state = self.state();
        ids.for_each(|id| state.end_marked(id));
    }

    /// Tells the store of the acknowledgements. Returns whether more messages are ready.
    pub(super) async fn flush(&self) -> Result<bool, Error> {
        Ok(self.write(Change::default()).await?.1)
    }

    /// Notes that attempts begin. One step notes all that wait for their turn. Returns whether this process
    /// may begin them, and whether more messages are ready. Waits no longer than until the partition counts as
    /// silent.
    pub(super) async fn begin(
        &self,
        begun: Vec<(DeliveryId, Attempts)>,
    ) -> Result<(bool, bool), Error> {
        let begins = Begins::wait(&self.state, begun);
        let mut writing = pin!(self.note(&begins));
        let written = loop {
            let (silent_from, patience) = {
                let state = self.state();
                (state.silent_from, state.patience())
            };
            if self.is_silent() {
                let rule = "the partition does not answer";
                break Err(Error::new(ErrorKind::Unavailable, "mark attempts", rule));
            }
            tokio::select! {
                biased;
                written = &mut writing => break written,
                () = sleep_until(silent_from.unwrap_or_else(|| Instant::now() + patience)) => {}
            }
        };
        match &written {
            Ok(_) => self.faults.marking.clear(),
            Err(error) => self.faults.marking.set(error),
        }
        let (stepped, ready) = written?;
        Ok((stepped == Stepped::Done && !self.tenure.is_over(), ready))
    }

    async fn note(&self, begins: &Begins<'_>) -> Result<(Stepped, bool), Error> {
        let turn = tokio::select! {
            biased;
            () = begins.noted(&self.noted) => None,
            turn = self.turn.lock() => Some(turn),
        };
        match turn {
            Some(mut turn) => self.write_in(&mut turn, Change::default()).await,
            None => Ok((Stepped::Done, false)),
        }
    }

    /// Puts a message back whose attempt may be marked. It is handed out again when the store has these attempts
    /// instead.
    pub(super) fn put_back_marked(&self, id: DeliveryId, attempts: Attempts) {
        let mut state = self.state();
        if state.take_out(id) {
            state.returned.push((id, attempts));
            state.is_awaited = true;
        }
    }

    /// Puts messages back that were handed out and not begun.
    pub(super) fn put_back(&self, ids: impl Iterator<Item = DeliveryId>) {
        let mut state = self.state();
        ids.for_each(|id| state.put_back(id, None));
    }

    /// Puts a message back that was handed out and not begun, with the attempts before.
    pub(super) fn put_back_counted(&self, id: DeliveryId, attempts: Attempts) {
        self.state().put_back(id, Some(attempts));
    }

    /// Puts a message back that was handed out and cannot begin before a later time.
    pub(super) fn put_back_later(&self, id: DeliveryId, delay: Duration) {
        self.state().put_back_later(id, Instant::now() + delay);
    }

    /// The deliveries that were handed out and have not ended.
    pub(super) fn out(&self) -> Vec<DeliveryId> {
        let state = self.state();
        let out = state.messages.iter().filter(|(_, one)| one.is_out);
        let number = self.number();
        out.map(|(id, _)| DeliveryId::new(id.lane, id.id.in_partition(number)))
            .collect()
    }

    pub(super) fn has_out(&self, id: DeliveryId) -> bool {
        let state = self.state();
        state.messages.get(&id).is_some_and(|one| one.is_out)
    }

    /// Whether another owner has taken the cursor: nothing more is written here.
    pub(super) fn is_fenced_off(&self) -> bool {
        self.is_fenced_off.load(Ordering::SeqCst)
    }

    /// Says whether nothing more is handed out. Returns what was said before.
    pub(super) fn set_closing(&self, closing: bool) -> bool {
        let mut state = self.state();
        let before = state.closing;
        state.closing = closing.then(|| before.unwrap_or_else(Instant::now));
        before.is_some()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing.is_some()
    }

    /// When it is given up at the latest, if it is to be given up.
    pub(super) fn closes_by(&self, handover: Duration) -> Option<Instant> {
        self.state().closing.map(|since| since + handover)
    }

    /// Whether nothing is handed out.
    pub(super) fn is_idle(&self) -> bool {
        self.state().out == 0
    }

    /// Tells the next owner that nothing has begun that is not settled. Entries that this owner has not read
    /// keep what the owners before said of them.
    pub(super) async fn let_go(&self) -> Result<(), Error> {
        let change = Change {
            lower: true,
            ..Change::default()
        };
        self.write(change).await.map(|_| ())
    }
}
