//! What an owned group keeps: members, owners, tokens, cursors and notes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::{ConsumerName, EntryId};
use crate::store::{Attempts, Attendance, Cursor, DeliveryId, Lane, Owner, Roster};

pub(super) const LANES: [Lane; 2] = [Lane::Log, Lane::Redelivery];

/// What an owned group has beside a shared one.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// The members, and when the lease of each ends. Those of partition 0 count.
    pub(super) members: BTreeMap<ConsumerName, Instant>,
    /// Those that are about to leave.
    pub(super) leaving: BTreeSet<ConsumerName>,
    pub(super) owners: BTreeMap<u16, ConsumerName>,
    pub(super) tokens: BTreeMap<u16, u64>,
    /// The token that last took the cursor, its owner, and the number of its last step.
    pub(super) token: u64,
    pub(super) owner: Option<ConsumerName>,
    pub(super) number: u64,
    pub(super) cursors: [Cursor; 2],
    pub(super) notes: BTreeMap<DeliveryId, StoredNote>,
    /// What effects have settled and the cursors do not count yet.
    pub(super) settled: BTreeSet<DeliveryId>,
}

#[derive(Debug)]
pub(super) struct StoredNote {
    pub(super) attempts: Attempts,
    /// When it is due, by the store's clock, and the message.
    pub(super) kept: Option<(u64, Bytes)>,
}

impl Owned {
    /// The number of members whose lease has not ended.
    pub(super) fn live(&self) -> u64 {
        let now = Instant::now();
        self.members.values().filter(|ends| **ends > now).count() as u64
    }

    /// Moves the cursor of the log. The owner must take it again: its steps are refused.
    pub(super) fn move_to(&mut self, low: EntryId) {
        self.token += 1;
        self.owner = None;
        self.cursors[0] = Cursor::at(low);
        self.settled.retain(|one| one.lane != Lane::Log);
    }

    /// Whether the owner under a token may end a delivery with effects.
    pub(super) fn may_end(
        &self,
        (owner, token): (&ConsumerName, u64),
        delivery: DeliveryId,
    ) -> bool {
        let is_owner = self.token == token && self.owner.as_ref() == Some(owner);
        let lane = LANES.iter().position(|lane| *lane == delivery.lane);
        let cursor = lane.map(|at| &self.cursors[at]);
        is_owner
            && !self.settled.contains(&delivery)
            && !cursor.is_some_and(|cursor| cursor.is_done(delivery.id))
    }

    pub(super) fn mark_settled(&mut self, delivery: DeliveryId) {
        self.settled.insert(delivery);
    }

    pub(super) fn drop_expired(&mut self, now: Instant) {
        self.members.retain(|_, ends| *ends > now);
        let members = &self.members;
        self.owners.retain(|_, owner| members.contains_key(owner));
        self.leaving.retain(|name| members.contains_key(name));
    }

    /// Returns the last token that was given. A new one is greater than `last_token`.
    pub(super) fn attend(
        &mut self,
        by: &ConsumerName,
        attendance: &Attendance,
        mut last_token: u64,
    ) -> u64 {
        let now = Instant::now();
        self.members.insert(by.clone(), now + attendance.lease);
        match attendance.leaving {
            true => self.leaving.insert(by.clone()),
            false => self.leaving.remove(by),
        };
        self.drop_expired(now);
        for at in &attendance.gives {
            if self.owners.get(at) == Some(by) {
                self.owners.remove(at);
            }
        }
        for (at, above) in &attendance.claims {
            let token = self.tokens.entry(*at).or_default();
            match self.owners.get(at) {
                Some(owner) if owner != by => {}
                Some(_) if *token > *above => {}
                _ => {
                    last_token = last_token.max(*above) + 1;
                    *token = last_token;
                    self.owners.insert(*at, by.clone());
                }
            }
        }
        last_token
    }

    pub(super) fn roster(&self, now: Instant) -> Roster {
        let lives = |name: &ConsumerName| self.members.get(name).is_some_and(|ends| *ends > now);
        let owners = self.owners.iter().filter(|(_, owner)| lives(owner));
        Roster {
            members: self
                .members
                .keys()
                .filter(|name| lives(name) && !self.leaving.contains(*name))
                .cloned()
                .collect(),
            owners: owners
                .map(|(at, owner)| {
                    let token = self.tokens.get(at).copied().unwrap_or(0);
                    let consumer = owner.clone();
                    (*at, Owner { consumer, token })
                })
                .collect(),
        }
    }
}
