//! Membership: stays in the group, claims partitions and gives them up.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::group::{OwnedGroup, member_at};
use super::partition::{OwnedPartition, Start};
use crate::api::Fence;
use crate::api::ownership::Tenure;
use crate::domain::{ConsumerName, Error, ErrorKind, Plan, describe, plan};
use crate::store::{Attendance, Bell, Member, Ring, Roster, Taken};
use crate::worker::core::Core;
use crate::worker::fault::back_off;
use crate::worker::intake::catch_up::recreate;

/// The part of a lease in which a member begins handlers.
fn tenure_of(lease: Duration) -> Duration {
    lease * 4 / 5
}

/// Stays in the group until the subscription halts.
pub(crate) async fn run(core: Arc<Core>, group: Arc<OwnedGroup>, halt: CancellationToken) {
    let first = member_at(&group.member, 0);
    let mut membership = Membership {
        attendance: Attendance {
            lease: group.lease,
            ..Attendance::default()
        },
        taken: BTreeMap::new(),
        count: None,
        bell: group.store.bell(&first.at),
        core,
        group,
        first,
    };
    let (owning, group) = (Arc::clone(&membership.core), Arc::clone(&membership.group));
    let mut failures = 0;
    while !halt.is_cancelled() {
        let rings = membership.rings();
        let changes = membership.group.changed.count();
        let attended = {
            let mut attending = pin!(membership.attend());
            loop {
                tokio::select! {
                    biased;
                    attended = &mut attending => break attended,
                    // The call may take longer than this process owns its partitions.
                    () = tenure_ends(&group) => {
                        owning.extend_all().await;
                    }
                }
            }
        };
        match attended {
            Ok(again) => {
                if failures > 0 {
                    membership.core.faults.owning.clear();
                }
                failures = 0;
                if again {
                    continue;
                }
            }
            Err(error) => {
                failures += 1;
                membership.fail(&error, failures).await;
            }
        }
        tokio::select! {
            biased;
            () = halt.cancelled() => {}
            () = membership.wait(rings, changes, failures) => {}
        }
    }
}

/// Completes when this process ceases to own a partition.
async fn tenure_ends(group: &OwnedGroup) {
    let all = group.all();
    match all.iter().filter_map(|one| one.tenure.until()).min() {
        Some(ends) => sleep_until(ends).await,
        None => std::future::pending().await,
    }
}

/// Runs a call for one partition, which must not hold up the others and the next renewal.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => {
            let rule = "no answer within a fifth of the lease";
            Err(Error::new(ErrorKind::Unavailable, "own partitions", rule))
        }
    }
}

struct Membership {
    core: Arc<Core>,
    group: Arc<OwnedGroup>,
    /// The member on partition 0.
    first: Member,
    bell: Option<Arc<Bell>>,
    /// What the next call says.
    attendance: Attendance,
    /// The token under which each partition was last taken. A partition is never taken twice under
    /// one token: the store would take the steps of the two for each other's.
    taken: BTreeMap<u16, u64>,
    count: Option<u16>,
}

impl Membership {
    fn rings(&self) -> u64 {
        let bell = self.bell.as_ref();
        bell.map_or(0, |bell| bell.count(Ring::Owners))
    }

    fn owns(&self, roster: &Roster, number: u16) -> Option<u64> {
        let owner = roster.owners.get(&number)?;
        (owner.consumer == self.first.consumer).then_some(owner.token)
    }

    /// Attends once. Returns whether there is more to say at once.
    async fn attend(&mut self) -> Result<bool, Error> {
        let count = match self.count {
            Some(count) => count,
            None => *self.count.insert(self.group.count().await?),
        };
        self.attendance.leaving = self.core.stop.is_cancelled();
        if self.attendance.leaving {
            self.attendance.claims.clear();
        }
        let sent = Instant::now();
        let owners = self.group.store.owners();
        let roster = owners.attend(&self.first, &self.attendance).await?;
        self.attendance.gives.clear();
        self.attendance.claims.clear();
        self.renew(&roster, sent).await;
        let taken = match self.attendance.leaving {
            true => Ok(()),
            false => self.take_all(&roster, count, sent).await,
        };
        self.share(&roster, count);
        self.let_go().await;
        taken?;
        Ok(!self.attendance.gives.is_empty() || !self.attendance.claims.is_empty())
    }

    /// Renews the partitions that this process still owns, and cancels the handlers of the others.
    async fn renew(&self, roster: &Roster, sent: Instant) {
        let until = sent + tenure_of(self.group.lease);
        let mut is_lost = false;
        for partition in self.group.all() {
            let fence = partition.tenure.fence();
            if self.owns(roster, fence.partition) != Some(fence.token) {
                partition.tenure.end();
            }
            is_lost |= !partition.tenure.renew(until);
        }
        if is_lost {
            self.lose().await;
        }
    }

    /// Cancels the handlers of partitions that this process no longer owns.
    async fn lose(&self) {
        self.core.extend_all().await;
        for partition in self.group.all() {
            if partition.is_fenced_off() {
                self.group.remove(partition.tenure.fence().partition);
            }
        }
    }

    /// Takes the partitions whose claims were granted, or claims them again under new tokens. Returns the
    /// last error: the next call takes what is left.
    async fn take_all(&mut self, roster: &Roster, count: u16, sent: Instant) -> Result<(), Error> {
        let mut granted = Vec::new();
        for number in 0..count {
            let Some(token) = self.owns(roster, number) else {
                continue;
            };
            let held = self.group.get(number);
            // What is being given up still writes its last step.
            if held
                .as_ref()
                .is_some_and(|held| !held.tenure.is_over() || held.is_closing())
            {
                continue;
            }
            // A membership that has begun again knows what it took from what it holds.
            let held = held.map_or(0, |held| held.tenure.fence().token);
            let taken = self.taken.get(&number).copied().unwrap_or(0).max(held);
            match token <= taken {
                true => self.attendance.claims.push((number, taken)),
                false => granted.push((member_at(&self.first, number), number, token)),
            }
        }
        let (store, limit) = (Arc::clone(&self.group.store), self.group.lease / 5);
        let calls = granted.iter().map(|(member, number, token)| {
            let call = store.owners().take(member, *token);
            async move { (member, *number, *token, within(limit, call).await) }
        });
        let mut last = Ok(());
        for (member, number, token, answer) in join_all(calls).await {
            match answer {
                Ok(found) => self.enter(member.clone(), (number, token), found, sent),
                Err(error) => last = Err(error),
            }
        }
        last
    }

    /// Enters a partition that was taken, or claims it above the token that the store has.
    fn enter(&mut self, member: Member, (number, token): (u16, u64), found: Taken, sent: Instant) {
        self.taken.insert(number, token);
        match found {
            Taken::Taken {
                cursors,
                notes,
                settled: marks,
            } => {
                let fence = Fence {
                    partition: number,
                    token,
                };
                let until = sent + tenure_of(self.group.lease);
                let start = Start {
                    member,
                    tenure: Arc::new(Tenure::new(fence, until)),
                    cursors,
                    notes,
                    marks,
                };
                let (store, rules) = (Arc::clone(&self.group.store), self.group.rules.clone());
                let partition = OwnedPartition::new(store, rules, start);
                self.group.insert(number, partition);
                tracing::debug!(subscription = %self.group.member, partition = number, token, "owns a partition");
            }
            Taken::Stale(other) => {
                self.taken.insert(number, other.max(token));
                self.attendance.claims.push((number, other));
            }
        }
    }

    /// Decides what to give up and what to claim.
    fn share(&mut self, roster: &Roster, count: u16) {
        let owners = roster.owners.iter();
        let owners: BTreeMap<u16, ConsumerName> = owners
            .map(|(number, owner)| (*number, owner.consumer.clone()))
            .collect();
        let plan = match self.attendance.leaving {
            true => Plan {
                gives: (0..count).collect(),
                claims: Vec::new(),
            },
            false => plan(&self.first.consumer, &roster.members, &owners, count),
        };
        for partition in self.group.all() {
            let number = partition.tenure.fence().partition;
            let gives = plan.gives.contains(&number);
            match (partition.set_closing(gives), gives) {
                (false, true) => self.core.take_back(|one| one == number),
                (true, false) => {
                    // A step to let it go may have had no answer, and its messages go on from here.
                    self.group.unwritten.ring();
                    self.group.changed.ring();
                }
                _ => {}
            }
        }
        for number in plan.gives {
            let is_untaken =
                self.owns(roster, number).is_some() && self.group.get(number).is_none();
            if is_untaken && self.attendance.leaving {
                // It was granted, and nothing of it was handed out.
                self.attendance.gives.push(number);
            }
        }
        for number in plan.claims {
            let above = self.taken.get(&number).copied().unwrap_or(0);
            self.attendance.claims.push((number, above));
        }
    }

    /// When a partition is given up at the latest. A shutdown cancels handlers at a time of its own.
    fn closes_by(&self, partition: &OwnedPartition) -> Option<Instant> {
        let closes_by = partition.closes_by(self.group.handover);
        closes_by.filter(|_| !self.attendance.leaving)
    }

    /// Lets partitions go that are to be given up: when no handler of theirs runs, and at the latest after
    /// the time for a handover.
    async fn let_go(&mut self) {
        let (now, limit) = (Instant::now(), self.group.lease / 5);
        let mut leaving = self.group.all();
        leaving.retain(|one| {
            one.is_idle() && one.is_closing() || self.closes_by(one).is_some_and(|by| now >= by)
        });
        let mut is_late = false;
        let busy = leaving.iter().filter(|one| !one.is_idle());
        for partition in busy.filter(|one| !one.tenure.is_over()) {
            is_late = true;
            partition.tenure.end();
            let number = partition.tenure.fence().partition;
            tracing::warn!(
                subscription = %self.group.member, partition = number,
                "cancels the handlers of a partition that another process gets"
            );
        }
        if is_late {
            self.core.extend_all().await;
        }
        let calls = leaving.into_iter().map(|partition| async move {
            // Until the store has it, the next owner must take messages for begun that are not.
            let gone = match partition.is_idle() {
                true => within(limit, partition.let_go()).await,
                false => within(limit, partition.flush()).await.map(|_| ()),
            };
            gone.map(|()| partition)
        });
        for partition in join_all(calls).await.into_iter().flatten() {
            let number = partition.tenure.fence().partition;
            partition.tenure.end();
            self.group.remove(number);
            self.attendance.gives.push(number);
        }
    }

    async fn fail(&mut self, error: &Error, failures: u32) {
        self.core.faults.owning.set(error);
        tracing::debug!(subscription = %self.group.member, error = %describe(error), "attending failed");
        if error.kind() == ErrorKind::NotFound && !self.core.stop.is_cancelled() {
            self.count = None;
            let recreating = recreate(&self.core, self.core.tracks.first());
            // It asks every partition.
            let _ = timeout(self.group.lease / 5, recreating).await;
        }
        if failures > 0 && self.group.all().iter().any(|one| one.tenure.is_over()) {
            self.lose().await;
        }
    }

    /// Waits until there may be something to say.
    async fn wait(&self, rings: u64, changes: u64, failures: u32) {
        let all = self.group.all();
        let mut until = Instant::now() + self.group.lease / 5;
        if failures > 0 {
            until = until.min(Instant::now() + back_off(failures));
        }
        let ends = all.iter().filter_map(|one| one.tenure.until()).min();
        // The last call has tried those whose time is over.
        let now = Instant::now();
        let closing = all.iter().filter_map(|one| self.closes_by(one));
        let closing = closing.filter(|by| *by > now).min();
        until = [ends, closing]
            .into_iter()
            .flatten()
            .fold(until, Instant::min);
        if !self.bell.as_ref().is_some_and(|bell| bell.hears()) {
            until = until.min(Instant::now() + self.group.pause_between_looks());
        }
        let rung = async {
            match &self.bell {
                Some(bell) if failures == 0 => bell.rung_since(Ring::Owners, rings).await,
                _ => std::future::pending().await,
            }
        };
        let is_closing = all.iter().any(|one| one.is_closing());
        let idle = async {
            loop {
                let seen = self.group.changed.count();
                let is_idle = |one: &Arc<OwnedPartition>| one.is_closing() && one.is_idle();
                if seen != changes && self.group.all().iter().any(is_idle) {
                    return;
                }
                self.group.changed.since(seen).await;
            }
        };
        tokio::select! {
            biased;
            () = rung => {}
            () = idle, if is_closing && failures == 0 => {}
            () = self.core.stop.cancelled(), if !self.attendance.leaving => {}
            () = sleep_until(until) => {}
        }
        // Several changes often come together.
        sleep(Duration::from_millis(1)).await;
    }
}
