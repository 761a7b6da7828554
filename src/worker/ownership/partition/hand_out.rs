//! Hands messages of a partition out: reads on, lets the next messages begin, and takes them.

use futures_util::future::join;
use tokio::time::Instant;

use super::OwnedPartition;
use super::state::{LANES, State, place};
use super::step::Change;
use crate::domain::{EntryId, Error};
use crate::store::{DeliveryId, Fetched, Lane, Ring};

/// The fewest entries that a read asks for, and the most.
const READ: (usize, usize) = (250, 500);

impl OwnedPartition {
    /// Whether the next messages need a call to the store before they can be taken.
    pub(in crate::worker::ownership) fn needs_call(&self, max: usize) -> bool {
        let rings = self.rings(Ring::Entries);
        let (mut state, now) = (self.state(), Instant::now());
        state.wake(now);
        if !self.hands_out(&state, now) {
            return false;
        }
        let has_enough = state.looks.has_read_all(rings, now) || state.lines.ready() >= max;
        !has_enough || state.raise(max).is_some()
    }

    /// Reads on, and lets up to `max` of the next messages begin: the store knows before they are taken that
    /// they may have begun. They stay in their lines meanwhile, so a call that is dropped or comes too late
    /// takes none along.
    pub(in crate::worker::ownership) async fn prepare(&self, max: usize) -> Result<(), Error> {
        self.read(max).await?;
        let change = {
            let (mut state, now) = (self.state(), Instant::now());
            state.wake(now);
            state.ahead = self.ahead(max);
            let Some(raise) = state.raise(max).filter(|_| self.hands_out(&state, now)) else {
                return Ok(());
            };
            Change {
                raise,
                ..Change::default()
            }
        };
        self.write(change).await.map(|_| ())
    }

    /// Takes up to `max` messages whose turn it is and that may begin.
    pub(in crate::worker::ownership) fn take(&self, max: usize) -> Vec<Fetched> {
        let (mut state, now) = (self.state(), Instant::now());
        state.wake(now);
        let mut taken = Vec::new();
        if !self.hands_out(&state, now) {
            return taken;
        }
        while taken.len() < max
            && let Some(id) = state.next(now)
        {
            if !state.may_begin(id) {
                state.put_back(id, None);
                break;
            }
            let last = &mut state.handed_out[place(id.lane)];
            *last = id.id.max(*last);
            taken.extend(self.fetched(&state, id));
        }
        taken
    }

    /// Prepares and takes.
    #[cfg(test)]
    pub(in crate::worker::ownership) async fn hand_out(
        &self,
        max: usize,
    ) -> Result<Vec<Fetched>, Error> {
        self.prepare(max).await?;
        Ok(self.take(max))
    }

    fn hands_out(&self, state: &State, now: Instant) -> bool {
        self.keeps_on(state) && !state.is_silent(now)
    }

    /// Whether this process keeps the partition.
    pub(super) fn keeps_on(&self, state: &State) -> bool {
        let ends = state.closing.is_some() || state.lowering || self.tenure.is_over();
        !ends
    }

    /// Whether the next messages may begin only after a step. This is so after a [`take`](Self::take) that found
    /// messages before them that are not due.
    pub(in crate::worker::ownership) fn needs_step(&self, max: usize) -> bool {
        let state = self.state();
        self.hands_out(&state, Instant::now()) && state.raise(max).is_some()
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

    /// How many entries beyond those handed out may begin without another step.
    fn ahead(&self, max: usize) -> usize {
        match self.rules.ahead {
            0 => 0,
            ahead => ahead.max(max),
        }
    }

    /// How often the bell has rung; `None` while it may miss changes.
    fn rings(&self, ring: Ring) -> Option<u64> {
        let bell = self.bell.as_ref().filter(|bell| bell.hears());
        bell.map(|bell| bell.count(ring))
    }

    /// Reads on, unless enough messages are ready or nothing has come since the last read.
    async fn read(&self, max: usize) -> Result<(), Error> {
        loop {
            let rings = self.rings(Ring::Entries);
            let redelivery_rings = self.rings(Ring::Redeliveries);
            let reads = {
                let (mut state, now) = (self.state(), Instant::now());
                state.wake(now);
                let has_read_all = state.looks.has_read_all(rings, now);
                if has_read_all || state.closing.is_some() || state.lines.ready() >= max {
                    return Ok(());
                }
                LANES.map(|lane| {
                    let looks = lane == Lane::Log
                        || state.looks.may_have_redeliveries(redelivery_rings, now);
                    // Also for the next hand-outs, whose entries may begin with the same step.
                    let most = (2 * max).clamp(READ.0, READ.1);
                    let room = state.free_entries(lane).min(most);
                    (
                        lane,
                        state.windows[place(lane)].last(),
                        looks.then_some(room),
                    )
                })
            };
            let read = async |(lane, after, room): (Lane, EntryId, Option<usize>)| match room {
                None | Some(0) => Ok(Vec::new()),
                Some(room) => {
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
                let Some(room) = room else { continue };
                let has_more = room == 0 || entries.len() == room;
                is_full |= has_more;
                if state.windows[place(lane)].last() != after {
                    // Another call has read the same, or has skipped a part of it.
                    is_full = true;
                    continue;
                }
                state.enter_all((&self.member, &self.rules), lane, entries, !has_more);
                if lane == Lane::Redelivery && !has_more {
                    state.looks.read_redeliveries = redelivery_rings;
                    state.looks.redeliveries_at = Some(Instant::now() + self.rules.pause);
                }
            }
            if !is_full {
                state.looks.note_read_all(rings, Instant::now());
                return Ok(());
            }
            // The messages read may all wait behind others of their keys.
            let rooms = LANES.map(|lane| state.free_entries(lane));
            if state.lines.ready() > 0 || rooms.contains(&0) {
                return Ok(());
            }
        }
    }
}

impl State {
    /// Whether the store knows that a message may have begun.
    pub(super) fn may_begin(&self, id: DeliveryId) -> bool {
        id.id <= self.windows[place(id.lane)].high()
    }

    /// Up to where entries must be allowed to begin, so that the next `max` messages may. `None` where they
    /// may.
    pub(super) fn raise(&self, max: usize) -> Option<[EntryId; 2]> {
        let (mut last, mut raise) = ([EntryId::default(); 2], [EntryId::default(); 2]);
        for one in self.lines.upcoming(max) {
            let last = &mut last[place(one.lane)];
            *last = one.id.max(*last);
        }
        for ((raise, last), window) in raise.iter_mut().zip(last).zip(&self.windows) {
            if last > window.high() {
                *raise = window.ahead(last, self.ahead);
            }
        }
        (raise != [EntryId::default(); 2]).then_some(raise)
    }
}
