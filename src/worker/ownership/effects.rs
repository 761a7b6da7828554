//! Effects in an owned group: they are committed under the token of the partition of their deliveries.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::group::{LastCall, OwnedGroup, member_at, partition_of};
use super::partition::{OwnedPartition, is_silence};
use crate::domain::{BoxFuture, Error};
use crate::store::{Effect, EffectCommit, EffectFate, EffectStore, Member, Session};

impl OwnedGroup {
    /// The partition and the token of a call; `None` where this process does not own the partition.
    fn call_of(&self, number: u64, commits: &[EffectCommit]) -> Option<LastCall> {
        let mut last = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = partition_of(commits.first()?.delivery);
        let call = last.get(&partition).filter(|last| last.number == number);
        if let Some(call) = call {
            return Some(*call);
        }
        let call = LastCall {
            number,
            partition,
            token: self.get(partition)?.tenure.fence().token,
        };
        last.insert(partition, call);
        Some(call)
    }

    /// Hands nothing more out of a partition whose effects have no answer, until a step has one. Their handlers
    /// would wait, too.
    fn note_silence(&self, partition: Option<Arc<OwnedPartition>>) {
        if let Some(partition) = partition {
            partition.note_silence();
            self.unwritten.ring();
        }
    }

    /// Commits the effects of deliveries of one partition.
    async fn commit_effects(
        &self,
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        let Some(call) = self.call_of(number, commits) else {
            return Ok(vec![EffectFate::Lost; commits.len()]);
        };
        let by = member_at(&self.member, call.partition);
        // Another time of this process has learnt of it with the cursor.
        let owned = || {
            let partition = self.get(call.partition);
            partition.filter(|one| one.tenure.fence().token == call.token)
        };
        let effects = self.store.effects();
        let mut committing = pin!(effects.commit_owned(&by, call.token, number, commits));
        let patience = owned().map_or(Duration::MAX, |one| one.patience());
        let fates = match timeout(patience, &mut committing).await {
            Ok(fates) => fates,
            Err(_) => {
                self.note_silence(owned());
                committing.await
            }
        };
        let fates = fates.inspect_err(|error| {
            if is_silence(error) {
                self.note_silence(owned());
            }
        })?;
        let partition = owned();
        if let Some(partition) = partition {
            let ended = commits.iter().zip(&fates).filter(|(commit, fate)| {
                let is_done = matches!(fate, EffectFate::Done(_) | EffectFate::Skipped);
                commit.acknowledges && is_done
            });
            partition.end_marked(ended.map(|(commit, _)| super::group::bare(commit.delivery)));
            if fates.contains(&EffectFate::Lost) {
                // On failure the next step tells it.
                let _ = partition.verify().await;
            }
            self.unwritten.ring();
        }
        self.changed.ring();
        Ok(fates)
    }
}

impl EffectStore for OwnedGroup {
    fn commit<'a>(
        &'a self,
        _by: &'a Member,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        Box::pin(self.commit_effects(number, commits))
    }

    fn commit_owned<'a>(
        &'a self,
        by: &'a Member,
        token: u64,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        let effects = self.store.effects();
        effects.commit_owned(by, token, number, commits)
    }

    fn apply<'a>(
        &'a self,
        session: Session,
        commits: &'a [Vec<Effect>],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        self.store.effects().apply(session, commits)
    }

    fn rehearse<'a>(&'a self, effects: &'a [Effect]) -> BoxFuture<'a, Result<EffectFate, Error>> {
        self.store.effects().rehearse(effects)
    }
}
