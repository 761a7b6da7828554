//! Hands out the messages of a partition whose turn it is, and reads on.

use futures_util::future::join;
use tokio::time::Instant;

use super::OwnedPartition;
use super::state::{LANES, State, place};
use super::step::Change;
use crate::domain::{EntryId, Error};
use crate::store::{DeliveryId, Fetched, Lane, Ring, Stepped};

/// The fewest entries that a read asks for, and the most.
const READ: (usize, usize) = (250, 500);

impl OwnedPartition {
    /// Hands out up to `max` messages whose turn it is. The store knows before that they may have
    /// begun.
    pub(in crate::worker::ownership) async fn hand_out(
        &self,
        max: usize,
    ) -> Result<Vec<Fetched>, Error> {
        self.read(max).await?;
        let (taken, change) = {
            let mut state = self.state();
            if state.closing.is_some() || state.lowering || self.tenure.is_over() {
                return Ok(Vec::new());
            }
            let now = Instant::now();
            state.wake(now);
            let taken: Vec<_> = std::iter::from_fn(|| state.next(now)).take(max).collect();
            let mut change = Change::default();
            state.ahead = self.ahead(max);
            for (at, lane) in LANES.into_iter().enumerate() {
                let ids = taken.iter().filter(|one| one.lane == lane);
                let Some(last) = ids.map(|one| one.id).max() else {
                    continue;
                };
                let window = &state.windows[at];
                if last > window.high() {
                    change.raise[at] = window.ahead(last, state.ahead);
                }
                state.handed_out[at] = state.handed_out[at].max(last);
            }
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

    /// How many entries beyond those handed out may begin without another step.
    fn ahead(&self, max: usize) -> usize {
        match self.rules.ahead {
            0 => 0,
            ahead => ahead.max(max),
        }
    }

    /// Reads on, unless enough messages are ready or nothing has come since the last read.
    async fn read(&self, max: usize) -> Result<(), Error> {
        loop {
            let bell = self.bell.as_ref().filter(|bell| bell.hears());
            let rings = bell.map(|bell| bell.count(Ring::Entries));
            let redelivery_rings = bell.map(|bell| bell.count(Ring::Redeliveries));
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
                    // Another call has read the same.
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
