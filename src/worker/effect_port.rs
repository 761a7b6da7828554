//! The way of effects from workers and handlers to their settler.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::delivery::Checkpoint;
use crate::api::lease::Lease;
use crate::api::{Committed, Rehearsal};
use crate::bus::{Publishing, committed};
use crate::domain::{BoxFuture, Effects, Error, ErrorKind};
use crate::store::{DeliveryId, EffectCommit, EffectFate};
use crate::worker::intake::in_flight::HandOut;
use crate::worker::tracks::Senders;

/// What the sender of a commit learns: the store's answer, or the error of a commit that the store
/// refuses as it is.
pub(crate) type Answer = Result<EffectFate, Error>;

/// A commit with effects on its way to the settler.
#[derive(Debug)]
pub(crate) struct EffectWrite {
    pub(crate) commit: EffectCommit,
    pub(crate) token: u64,
    pub(crate) answer: oneshot::Sender<Answer>,
}

impl EffectWrite {
    pub(crate) fn hand_out(&self) -> HandOut {
        HandOut {
            id: self.commit.delivery,
            token: self.token,
        }
    }
}

/// The way of effects from workers and handlers to the settler.
#[derive(Debug)]
pub(crate) struct EffectPort {
    pub(crate) publishing: Arc<Publishing>,
    pub(crate) writes: Senders<EffectWrite>,
    /// Whether effects are only checked: the group is a shadow group.
    pub(crate) is_shadow: bool,
}

impl EffectPort {
    /// Passes a commit to the settler and waits for its answer.
    pub(crate) async fn commit(&self, commit: EffectCommit, token: u64) -> Answer {
        let (answer, answered) = oneshot::channel();
        let write = EffectWrite {
            commit,
            token,
            answer,
        };
        let ended = || {
            let rule = "the subscription has ended; the effects may be written";
            Error::new(ErrorKind::OutcomeUnknown, "commit", rule)
        };
        let writes = self.writes.of(write.commit.delivery);
        writes.send(write).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Checkpoint for EffectPort {
    fn checkpoint<'a>(
        &'a self,
        id: DeliveryId,
        lease: &'a Lease,
        effects: &'a Effects,
    ) -> BoxFuture<'a, Result<Committed, Error>> {
        Box::pin(async move {
            if self.is_shadow {
                let skipped = self.publishing.rehearse(effects).await? == Rehearsal::Skips;
                return Ok(Committed {
                    skipped,
                    ..Committed::default()
                });
            }
            let prepared = self.publishing.prepare(effects)?;
            let admitted = self.publishing.admit_all(&prepared).await;
            let admission = admitted.inspect_err(|error| self.publishing.fail(&prepared, error))?;
            let commit = EffectCommit {
                delivery: id,
                acknowledges: false,
                only_copy: lease.is_only_copy(),
                effects: prepared.effects().to_vec(),
            };
            let fate = self.commit(commit, lease.token()).await;
            let done = fate.and_then(|fate| committed(prepared.effects(), fate));
            self.publishing.finish(&prepared, admission, &done);
            done
        })
    }
}
