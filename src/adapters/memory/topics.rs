//! Topics and groups: creating, listing, removing and trimming.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::{MemoryAdapter, gone, turn};
use super::inspect::{consumers, group_status};
use super::owned::Owned;
use super::owners::live_members;
use super::sessions::session_of;
use super::state::GroupState;
use crate::domain::{
    BoxFuture, ConsumerName, EntryId, Error, Retention, Topic, TopicSettings, whole_millis,
};
use crate::store::{
    GroupAt, GroupRemoval, GroupReset, Member, Partition, ResetTo, StartFrom, TopicRemoval, Topics,
    Trimmed, wrong_kind,
};

impl MemoryAdapter {
    fn removal(&self, at: &GroupAt, quiet: Duration, force: bool) -> Option<GroupRemoval> {
        let (removal, arrived) = self.with(|space| {
            let members = live_members(space, at);
            let topic = space.topics.get_mut(&at.partition)?;
            let state = topic.groups.get(&at.group)?;
            let mut status = group_status(topic, &at.group, state);
            status.consumers += members;
            let consumers = consumers(state);
            let live = consumers.iter().filter(|one| one.idle_for < quiet).count() as u64;
            let live = live + members;
            let needed = status.lag + status.in_flight + status.scheduled + status.dead;
            let removed = force || needed + live == 0;
            if removed {
                topic.groups.remove(&at.group);
            }
            let removal = GroupRemoval {
                removed,
                status,
                live_consumers: live,
            };
            Some((removal, topic.arrived.clone()))
        })?;
        // A waiting reader then finds that its group is gone.
        arrived.notify_waiters();
        Some(removal)
    }

    fn move_cursor(&self, at: &GroupAt, to: ResetTo, quiet: Duration) -> Option<GroupReset> {
        self.with(|space| {
            let members = live_members(space, at);
            let topic = space.topics.get_mut(&at.partition)?;
            let (last, state) = (topic.log.last(), topic.groups.get_mut(&at.group)?);
            let before = state.log.delivered;
            let consumers = consumers(state);
            let live = consumers.iter().filter(|one| one.idle_for < quiet).count() as u64;
            let live = live + members;
            if live > 0 {
                return Some(GroupReset::new(before, live));
            }
            let after = match to {
                ResetTo::Beginning => EntryId::default(),
                ResetTo::Entry(id) => id.before().unwrap_or_default().min(last),
                ResetTo::End => last,
            };
            state.log.delivered = after;
            if let Some(owned) = &mut state.owned {
                // A member that has joined since must read from the new place.
                owned.move_to(after);
            }
            Some(GroupReset {
                moved: true,
                live_consumers: 0,
                before,
                after,
            })
        })
    }

    /// Creates a group of a kind, or finds it.
    pub(super) fn make_group(
        &self,
        at: &GroupAt,
        start: StartFrom,
        owned: bool,
    ) -> Result<(), Error> {
        let is_owned = self.with(|space| {
            let state = space.topics.entry(at.partition.clone()).or_default();
            let delivered = match start {
                StartFrom::Beginning => EntryId::default(),
                StartFrom::End => state.log.last(),
            };
            let group = state.groups.entry(at.group.clone()).or_insert_with(|| {
                let mut made = GroupState::default();
                made.log.delivered = delivered;
                made.owned = owned.then(Owned::default);
                made
            });
            group.owned.is_some()
        });
        match is_owned == owned {
            true => Ok(()),
            false => Err(wrong_kind("create group", is_owned).on(at.to_string())),
        }
    }

    fn trim_log(&self, at: &Partition) -> Trimmed {
        let now = self.shared.now();
        self.with(|space| {
            let Some(topic) = space.topics.get_mut(at) else {
                return Trimmed::default();
            };
            // The smallest id that a group still needs: the log keeps everything from there on.
            let floor = topic.groups.values().map(|group| group.log.floor()).min();
            let settled = |id: EntryId| floor.is_none_or(|floor| id < floor);
            let later = topic.groups.values().map(GroupState::later);
            let later: u64 = later.sum();
            let backlog = later + topic.log.len_from(floor.unwrap_or_default());
            let settings = topic.settings.unwrap_or_default();
            let removed = match settings.retention() {
                Retention::Settled => topic.log.trim(|id, _| floor.is_some() && settled(id)),
                Retention::Count(keep) => {
                    let keep = settings.share(keep);
                    topic.log.trim(|id, len| len > keep && settled(id))
                }
                Retention::Age(age) => {
                    let oldest = now.saturating_sub(whole_millis(age));
                    topic.log.trim(|id, _| id.millis < oldest && settled(id))
                }
            };
            Trimmed {
                removed,
                length: topic.log.len(),
                backlog,
                known: topic.settings.is_some(),
            }
        })
    }
}

/// A consumer that was active within this time lives.
const LIVE: Duration = Duration::from_secs(15);

/// Removes idle consumers without pending deliveries, and returns them with how long each was idle.
fn prune(
    group: &mut GroupState,
    idle: Duration,
    only: Option<&ConsumerName>,
) -> Vec<(ConsumerName, Duration)> {
    let now = Instant::now();
    let pending = [&group.log, &group.redelivered].map(|cursor| cursor.pending.values());
    let pending = pending.into_iter().flatten();
    let busy: BTreeSet<&ConsumerName> = pending.map(|pending| &pending.consumer).collect();
    let mut removed = Vec::new();
    group.consumers.retain(|name, active| {
        let silent = now.saturating_duration_since(*active);
        let stays = busy.contains(name) || silent < idle || only.is_some_and(|only| only != name);
        if !stays {
            removed.push((name.clone(), silent));
        }
        stays
    });
    removed
}

/// Whether a consumer has pending deliveries.
fn holds(group: &GroupState, name: &ConsumerName) -> bool {
    let lanes = [&group.log, &group.redelivered];
    let mut pending = lanes.iter().flat_map(|cursor| cursor.pending.values());
    pending.any(|one| one.consumer == *name)
}

impl Topics for MemoryAdapter {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        turn(move || {
            settings
                .check("create topic")
                .map_err(|e| e.on(topic.as_str()))?;
            Ok(self.with(|space| {
                let state = space.topics.entry(Partition::of(topic)).or_default();
                let held = *state.settings.get_or_insert(settings);
                for number in 1..held.partitions() {
                    let at = Partition::numbered(topic, number);
                    let state = space.topics.entry(at).or_default();
                    state.settings.get_or_insert(held);
                }
                held
            }))
        })
    }

    fn change_settings<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<Option<TopicSettings>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let first = space.topics.get(&Partition::of(topic))?;
                let before = first.settings?;
                let settings = settings.with_partitions(before.partitions());
                for number in 0..before.partitions() {
                    let at = Partition::numbered(topic, number);
                    if let Some(state) = space.topics.get_mut(&at) {
                        state.settings = Some(settings);
                    }
                }
                Some(before)
            }))
        })
    }

    fn remove_topic<'a>(
        &'a self,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Option<TopicRemoval>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let first = space.topics.get(&Partition::of(topic))?;
                let groups = first.groups.len() as u64;
                let count = first.settings.unwrap_or_default().partitions();
                let all: Vec<_> = (0..count)
                    .map(|number| Partition::numbered(topic, number))
                    .collect();
                let logs = all.iter().filter_map(|at| space.topics.get(at));
                let removal = TopicRemoval::new(logs.map(|one| one.log.len()).sum(), groups);
                if removal.removed {
                    space.topics.retain(|at, _| !all.contains(at));
                }
                Some(removal)
            }))
        })
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<u16>, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let first = space.topics.get(&Partition::of(topic))?;
                first.settings.map(|settings| settings.partitions())
            }))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        turn(|| {
            Ok(self.with(|space| {
                let topics = space.topics.iter();
                let known =
                    topics.filter(|(at, state)| at.number() == 0 && state.settings.is_some());
                known.map(|(at, _)| at.topic().clone()).collect()
            }))
        })
    }

    fn create_group<'a>(
        &'a self,
        at: &'a GroupAt,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || self.make_group(at, start, false))
    }

    fn set_lease<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Duration, Error>> {
        turn(move || {
            self.with(|space| {
                let group = space.group(&by.at);
                let group = group.ok_or_else(|| gone("set lease").on(by.to_string()))?;
                group.set_active(&by.consumer);
                let (now, alive) = (Instant::now(), group.lease.max(LIVE));
                let others = group
                    .consumers
                    .iter()
                    .filter(|(name, _)| **name != by.consumer);
                let mut idle = others.map(|(_, active)| now.saturating_duration_since(*active));
                if lease >= group.lease || idle.all(|idle| idle >= alive) {
                    group.lease = lease;
                }
                Ok(group.lease)
            })
        })
    }

    fn remove_group<'a>(
        &'a self,
        at: &'a GroupAt,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        turn(move || Ok(self.removal(at, quiet, force)))
    }

    fn reset_group<'a>(
        &'a self,
        at: &'a GroupAt,
        to: ResetTo,
        quiet: Duration,
    ) -> BoxFuture<'a, Result<Option<GroupReset>, Error>> {
        turn(move || Ok(self.move_cursor(at, to, quiet)))
    }

    fn trim<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Trimmed, Error>> {
        turn(move || Ok(self.trim_log(at)))
    }

    fn trim_in_turn<'a>(
        &'a self,
        at: &'a Partition,
        pause: Duration,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || {
            let mine = self.with(|space| {
                let topic = space.topics.get_mut(at)?;
                let now = Instant::now();
                let recent = |last: &Instant| now.saturating_duration_since(*last) < pause;
                let mine = !topic.trimmed.as_ref().is_some_and(recent);
                mine.then(|| topic.trimmed = Some(now))
            });
            Ok(mine.map_or(0, |()| self.trim_log(at).removed))
        })
    }

    fn trim_redelivery<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            self.with(|space| {
                if let Some(group) = space.group(at) {
                    let floor = group.redelivered.floor();
                    group.redelivery.trim(|id, _| id < floor);
                }
            });
            Ok(())
        })
    }

    fn prune_consumers<'a>(
        &'a self,
        at: &'a GroupAt,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        turn(move || {
            Ok(self.with(|space| {
                let Some(group) = space.group(at) else {
                    return 0;
                };
                let removed = prune(group, idle, only);
                let lease = group.lease;
                let has_ended = only.filter(|name| !holds(group, name));
                let silent = removed.iter().filter(|(_, silent)| *silent >= lease);
                for name in silent.map(|(name, _)| name).chain(has_ended) {
                    space.sessions.remove(&session_of(at, name));
                }
                removed.len() as u64
            }))
        })
    }
}
