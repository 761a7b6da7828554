//! Hands messages of a partition out to the workers.

use tokio::time::Instant;

use super::OwnedPartition;
use super::state::{LANES, State, place};
use super::step::Change;
use crate::domain::{EntryId, Error};
use crate::store::{DeliveryId, Fetched, Stepped};

/// Messages on their way to the workers, and what the store must know before.
#[derive(Debug, Default)]
pub(in crate::worker::ownership) struct HandOut {
    taken: Vec<DeliveryId>,
    change: Change,
}

impl HandOut {
    pub(in crate::worker::ownership) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether the store must learn before that they may have begun.
    pub(in crate::worker::ownership) fn needs_step(&self) -> bool {
        self.change.raise != [EntryId::default(); 2]
    }
}

impl OwnedPartition {
    /// Reads on, and hands out up to `max` messages.
    #[cfg(test)]
    pub(in crate::worker::ownership) async fn hand_out(
        &self,
        max: usize,
    ) -> Result<Vec<Fetched>, Error> {
        self.read(max).await?;
        let hand_out = self.take(max);
        match hand_out.needs_step() {
            true => self.allow(hand_out).await,
            false => Ok(self.fetched(&hand_out)),
        }
    }

    /// Takes up to `max` messages whose turn it is.
    pub(in crate::worker::ownership) fn take(&self, max: usize) -> HandOut {
        let mut state = self.state();
        if state.closing.is_some() || state.lowering || self.tenure.is_over() {
            return HandOut::default();
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
        HandOut { taken, change }
    }

    /// Hands taken messages out once the store knows that they may have begun.
    pub(in crate::worker::ownership) async fn allow(
        &self,
        hand_out: HandOut,
    ) -> Result<Vec<Fetched>, Error> {
        let HandOut { taken, change } = hand_out;
        let written = self.write(change).await;
        let mut state = self.state();
        match written {
            Ok((Stepped::Done, _)) if !self.tenure.is_over() => Ok(self.fetch(&state, &taken)),
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

    /// Hands taken messages out that need no step.
    pub(in crate::worker::ownership) fn fetched(&self, hand_out: &HandOut) -> Vec<Fetched> {
        self.fetch(&self.state(), &hand_out.taken)
    }

    fn fetch(&self, state: &State, taken: &[DeliveryId]) -> Vec<Fetched> {
        let fetched = |id: &DeliveryId| {
            let message = state.messages.get(id)?;
            Some(Fetched {
                source: place(id.lane) as u16,
                receipt: DeliveryId::new(id.lane, id.id.in_partition(self.number())),
                fields: message.fields.clone(),
                attempts: message.attempts,
                kind: message.kind,
            })
        };
        taken.iter().filter_map(fetched).collect()
    }

    /// How many entries beyond those handed out may begin without another step.
    fn ahead(&self, max: usize) -> usize {
        match self.rules.ahead {
            0 => 0,
            ahead => ahead.max(max),
        }
    }
}
