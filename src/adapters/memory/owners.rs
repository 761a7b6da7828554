//! Owned groups: members, partitions and fenced cursors.
//!
//! Leases go by the time that really passes, delays by the store's clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, gone, turn};
use super::owned::{LANES, Owned, StoredNote};
use super::schedule::time;
use super::state::{GroupState, Space, redelivery_entry};
use crate::domain::{BoxFuture, EntryId, Error, whole_millis};
use crate::store::{
    Attendance, Commit, Cursor, End, Fields, GroupAt, KeptMessage, Lane, Member, Note,
    OwnedProgress, Owner, Owners, Partition, Roster, StartFrom, Step, Stepped, Taken,
};

fn first_of(at: &GroupAt) -> GroupAt {
    GroupAt {
        partition: Partition::numbered(at.topic(), 0),
        group: at.group.clone(),
    }
}

/// How many members an owned group has; none for a shared one.
pub(super) fn live_members(space: &mut Space, at: &GroupAt) -> u64 {
    let group = space.group(&first_of(at));
    group
        .and_then(|group| group.owned.as_ref())
        .map_or(0, Owned::live)
}

impl MemoryAdapter {
    fn owned<T>(
        &self,
        operation: &'static str,
        at: &GroupAt,
        work: impl FnOnce(&mut GroupState) -> T,
    ) -> Result<T, Error> {
        self.with(|space| {
            space
                .group(at)
                .filter(|group| group.owned.is_some())
                .map(work)
        })
        .ok_or_else(|| gone(operation).on(at.to_string()))
    }

    fn take_cursor(&self, by: &Member, token: u64) -> Result<Taken, Error> {
        let now = self.shared.now();
        self.owned("take", &by.at, |group| {
            let delivered = LANES.map(|lane| group.cursor(lane).delivered);
            let Some(owned) = &mut group.owned else {
                return Taken::Stale(0);
            };
            let is_other = owned.owner.as_ref() != Some(&by.consumer);
            if owned.token > token || owned.token == token && is_other {
                return Taken::Stale(owned.token);
            }
            if owned.token < token {
                (owned.token, owned.owner, owned.number) = (token, Some(by.consumer.clone()), 0);
            }
            for ((lane, cursor), delivered) in LANES.iter().zip(&mut owned.cursors).zip(delivered) {
                if cursor.low != delivered {
                    *cursor = Cursor::at(delivered);
                    // Its entries are handled again.
                    owned.settled.retain(|one| one.lane != *lane);
                }
            }
            let notes = owned.notes.iter().map(|(delivery, note)| Note {
                delivery: *delivery,
                attempts: note.attempts,
                kept: note.kept.as_ref().map(|(due, message)| {
                    let left = due.saturating_sub(now);
                    (Duration::from_millis(left), message.clone())
                }),
            });
            Taken::Taken {
                cursors: owned.cursors.clone(),
                notes: notes.collect(),
                settled: owned.settled.iter().copied().collect(),
            }
        })
    }

    fn read_progress(&self, at: &GroupAt, max: usize) -> OwnedProgress {
        let mut progress = OwnedProgress {
            now: time(self.shared.now()),
            taken: None,
            cursors: <_>::default(),
            kept: Vec::new(),
        };
        self.with(|space| {
            let group = space.group(at);
            let Some(owned) = group.and_then(|group| group.owned.as_ref()) else {
                return;
            };
            if let Some(consumer) = owned.owner.clone() {
                let token = owned.token;
                progress.taken = Some(Owner { consumer, token });
                progress.cursors.clone_from(&owned.cursors);
            }
            let kept = owned.notes.iter().filter_map(|(delivery, note)| {
                let (due, message) = note.kept.as_ref()?;
                Some(KeptMessage {
                    delivery: *delivery,
                    due: time(*due),
                    message: Some(message.clone()),
                })
            });
            progress.kept.extend(kept);
        });
        let kept = &mut progress.kept;
        kept.sort_by_key(|one| (one.delivery.id, one.delivery.lane));
        kept.iter_mut().skip(max).for_each(|one| one.message = None);
        progress
    }

    fn write_step(&self, by: &Member, step: &Step) -> Result<Stepped, Error> {
        let now = self.shared.now();
        let done = self.owned("step", &by.at, |group| {
            let Some(owned) = &mut group.owned else {
                return Stepped::Stale;
            };
            if owned.token != step.token || owned.owner.as_ref() != Some(&by.consumer) {
                return Stepped::Stale;
            }
            if owned.number == step.number {
                return Stepped::Done;
            }
            if owned.number + 1 != step.number {
                return Stepped::Stale;
            }
            owned.number = step.number;
            for (cursor, lane) in owned.cursors.iter_mut().zip(&step.lanes) {
                if let Some(lane) = lane {
                    cursor.clone_from(&lane.cursor);
                }
            }
            for delivery in &step.forgets {
                owned.notes.remove(delivery);
                owned.settled.remove(delivery);
            }
            for note in &step.notes {
                let due = |delay| now.saturating_add(whole_millis(delay));
                let kept = note.kept.clone();
                let stored = StoredNote {
                    attempts: note.attempts,
                    kept: kept.map(|(delay, message)| (due(delay), message)),
                };
                owned.notes.insert(note.delivery, stored);
            }
            let lows = [0, 1].map(|at| owned.cursors[at].low);
            for (lane, low) in LANES.into_iter().zip(lows) {
                group.cursor(lane).delivered = low;
            }
            step.ends.iter().for_each(|one| write_end(group, one, now));
            Stepped::Done
        })?;
        if !step.ends.is_empty() {
            self.with(|space| {
                if let Some(topic) = space.topics.get(&by.at.partition) {
                    Arc::clone(&topic.arrived).notify_waiters();
                }
            });
        }
        Ok(done)
    }
}

fn write_end(group: &mut GroupState, commit: &Commit, now: u64) {
    match commit.end() {
        End::Reschedule { delay, redelivery } if delay.is_zero() => {
            let entry = redelivery_entry(redelivery.clone());
            group.redelivery.push(now, entry);
        }
        End::Reschedule { delay, redelivery } => {
            let due = now.saturating_add(whole_millis(*delay));
            let place = (due, commit.delivery());
            group.scheduled.insert(place, redelivery.clone());
        }
        End::DeadLetter(record) => {
            group.dead_letter((**record).clone(), now);
        }
        End::Ack | End::Release { .. } => {}
    }
}

impl Owners for MemoryAdapter {
    fn create<'a>(&'a self, at: &'a GroupAt, start: StartFrom) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || self.make_group(at, start, true))
    }

    fn attend<'a>(
        &'a self,
        by: &'a Member,
        attendance: &'a Attendance,
    ) -> BoxFuture<'a, Result<Roster, Error>> {
        turn(move || {
            // A store of a later process gives greater tokens than this one, too.
            let floor = self.shared.now().saturating_mul(1000);
            let attended = self.with(|space| {
                let last_token = space.last_token.max(floor);
                let owned = space.group(&by.at)?.owned.as_mut()?;
                let last_token = owned.attend(&by.consumer, attendance, last_token);
                let roster = owned.roster(Instant::now());
                space.last_token = last_token;
                Some(roster)
            });
            attended.ok_or_else(|| gone("attend").on(by.at.to_string()))
        })
    }

    fn leave<'a>(&'a self, by: &'a Member) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            let _ = self.owned("leave", &by.at, |group| {
                let owned = group.owned.get_or_insert_default();
                owned.members.remove(&by.consumer);
                owned.drop_expired(Instant::now());
            });
            // A group that is gone has no members.
            Ok(())
        })
    }

    fn roster<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<Roster, Error>> {
        turn(move || {
            self.owned("roster", at, |group| {
                let owned = group.owned.as_ref();
                owned
                    .map(|owned| owned.roster(Instant::now()))
                    .unwrap_or_default()
            })
        })
    }

    fn take<'a>(&'a self, by: &'a Member, token: u64) -> BoxFuture<'a, Result<Taken, Error>> {
        turn(move || self.take_cursor(by, token))
    }

    fn progress<'a>(
        &'a self,
        at: &'a GroupAt,
        max: usize,
    ) -> BoxFuture<'a, Result<OwnedProgress, Error>> {
        turn(move || Ok(self.read_progress(at, max)))
    }

    fn read<'a>(
        &'a self,
        at: &'a GroupAt,
        lane: Lane,
        after: EntryId,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        turn(move || {
            let found = self.with(|space| {
                let topic = space.topics.get_mut(&at.partition)?;
                let (entries, _) = topic.lane(&at.group, lane)?;
                Some(entries.after(Some(after)).take(max).cloned().collect())
            });
            found.ok_or_else(|| gone("read").on(at.to_string()))
        })
    }

    fn listen<'a>(&'a self, _at: &'a GroupAt) -> BoxFuture<'a, Result<bool, Error>> {
        turn(|| Ok(false))
    }

    fn step<'a>(&'a self, by: &'a Member, step: &'a Step) -> BoxFuture<'a, Result<Stepped, Error>> {
        turn(move || self.write_step(by, step))
    }
}
