//! Settling deliveries with their effects: one call under way, repeated until the store answers.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::api::supervise::log;
use crate::domain::{Error, ErrorKind, describe};
use crate::store::{Commit, Commits, EffectCommit, EffectFate, MAX_COMMITS};
use crate::worker::effect_port::{Answer, EffectWrite};
use crate::worker::fault::back_off;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::settle::Settler;

/// The most bytes of a call that has more than one commit.
const CALL_BYTES: usize = 1024 * 1024;

/// The call that the settler works on. It outlives a settler that panics: the next one sends the call
/// again under the same number, and the store answers as it answered the first.
#[derive(Debug)]
pub(crate) struct EffectCalls {
    queue: mpsc::Receiver<EffectWrite>,
    received: VecDeque<EffectWrite>,
    call: Vec<EffectCommit>,
    /// The hand-out and the sender of each commit of the call.
    senders: Vec<(HandOut, oneshot::Sender<Answer>)>,
    /// The number of the call.
    number: u64,
    /// How many of the next commits go alone, because the store refused a call of several.
    alone: usize,
}

impl EffectCalls {
    pub(crate) fn new(queue: mpsc::Receiver<EffectWrite>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            queue,
            received: VecDeque::new(),
            call: Vec::new(),
            senders: Vec::new(),
            number: 0,
            alone: 0,
        }))
    }

    /// Waits for commits, unless some are left. False once every worker has ended.
    async fn receive(&mut self) -> bool {
        if self.received.is_empty() && self.call.is_empty() {
            match self.queue.recv().await {
                Some(first) => self.received.push_back(first),
                None => return false,
            }
        }
        while self.received.len() < MAX_COMMITS
            && let Ok(more) = self.queue.try_recv()
        {
            self.received.push_back(more);
        }
        true
    }

    /// Puts the next call together, of commits in one partition. The store writes each partition by itself,
    /// so a refusal of one must not leave the call half done.
    fn begin_call(&mut self) {
        let most = if self.alone > 0 { 1 } else { MAX_COMMITS };
        let partition = self.received.front().map(partition_of);
        let (mut bytes, mut others) = (0, Vec::new());
        while let Some(next) = self.received.pop_front() {
            if Some(partition_of(&next)) != partition {
                others.push(next);
                continue;
            }
            bytes += next.commit.weight();
            if self.call.len() == most || (bytes > CALL_BYTES && !self.call.is_empty()) {
                self.received.push_front(next);
                break;
            }
            self.senders.push((next.hand_out(), next.answer));
            self.call.push(next.commit);
        }
        for other in others.into_iter().rev() {
            self.received.push_front(other);
        }
        self.alone = self.alone.saturating_sub(1);
        self.number += 1;
    }

    /// Takes the call apart again: the store has certainly not done it. Its commits come first in the
    /// next calls.
    fn take_apart(&mut self) {
        let writes = self.call.drain(..).zip(self.senders.drain(..));
        let writes: Vec<_> = writes
            .map(|(commit, (hand_out, answer))| EffectWrite {
                commit,
                token: hand_out.token,
                answer,
            })
            .collect();
        self.alone = writes.len();
        for write in writes.into_iter().rev() {
            self.received.push_front(write);
        }
    }
}

fn partition_of(write: &EffectWrite) -> u16 {
    write.commit.delivery.id.partition()
}

impl Settler {
    /// Commits effects until every worker has ended.
    ///
    /// A commit whose lease was lost is dropped before it is sent. While a call is under way its
    /// deliveries stay in the in-flight table, so this process is not handed their entries again.
    pub(crate) async fn commit_effects(self, calls: Arc<Mutex<EffectCalls>>) {
        let calls = &mut *calls.lock().await;
        while calls.receive().await {
            if calls.call.is_empty() {
                self.drop_lost(&mut calls.received);
                if calls.received.is_empty() {
                    continue;
                }
                calls.begin_call();
            }
            match self.send(calls.number, &calls.call).await {
                Ok(fates) => self.answer(calls, fates).await,
                Err(_) if calls.call.len() > 1 => calls.take_apart(),
                Err(error) => {
                    calls.call.clear();
                    for (_, answer) in calls.senders.drain(..) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn drop_lost(&self, received: &mut VecDeque<EffectWrite>) {
        for write in std::mem::take(received) {
            let hand_out = write.hand_out();
            if self.in_flight.may_commit(hand_out) {
                received.push_back(write);
            } else {
                self.end_lost(hand_out, write.commit.acknowledges, write.answer);
            }
        }
    }

    /// Another consumer has the message. A handler that waits for its checkpoint still runs: it is
    /// cancelled, and the entry stays away from this process until the handler has returned.
    fn end_lost(&self, hand_out: HandOut, acknowledges: bool, answer: oneshot::Sender<Answer>) {
        if acknowledges {
            self.in_flight.remove([hand_out]);
        } else {
            let lost = self.in_flight.lose([hand_out]);
            self.meters.leases_lost.increment(lost);
        }
        self.meters.commits_lost.increment(1);
        let _ = answer.send(Ok(EffectFate::Lost));
    }

    /// Sends a call until the store answers it. Returns an error only if the store certainly did
    /// nothing and will not as long as the call stays as it is.
    async fn send(&self, number: u64, call: &[EffectCommit]) -> Result<Vec<EffectFate>, Error> {
        self.meters.settle_batch.record(call.len() as f64);
        let (mut failures, mut unknown) = (0, false);
        loop {
            let committing = self.store.effects().commit(&self.member, number, call);
            let error = match self.traced("commit", call.len(), committing).await {
                Ok(fates) if fates.len() == call.len() => {
                    if failures > 0 {
                        self.fault.clear();
                    }
                    return Ok(fates);
                }
                Ok(_) => {
                    let rule = "the store gave a wrong number of answers";
                    Error::new(ErrorKind::OutcomeUnknown, "commit", rule)
                }
                Err(error) => error,
            };
            unknown |= error.is_outcome_unknown();
            let passes = error.is_outcome_unknown() || error.kind() == ErrorKind::Unavailable;
            if !passes && !unknown {
                return Err(error);
            }
            failures += 1;
            self.fault.set(&error);
            if failures == 1 {
                log(|| {
                    let (subscription, error) = (&self.member, describe(&error));
                    tracing::warn!(%subscription, error, "committing effects failed; retrying until it works");
                });
            }
            sleep(back_off(failures)).await;
        }
    }

    /// Tells the senders, and removes ended deliveries from the in-flight table.
    async fn answer(&self, calls: &mut EffectCalls, fates: Vec<EffectFate>) {
        let all = calls.call.drain(..).zip(calls.senders.drain(..)).zip(fates);
        let (mut again, mut abandoned) = (Vec::new(), Vec::new());
        for ((mut commit, (hand_out, answer)), fate) in all {
            match fate {
                EffectFate::Done(_) | EffectFate::Skipped => {
                    self.meters.committed.increment(1);
                    if commit.acknowledges {
                        self.in_flight.remove([hand_out]);
                        self.settled.note(&[hand_out]);
                        self.meters.acknowledged.increment(1);
                    }
                    let _ = answer.send(Ok(fate));
                }
                // Something other than Redstart removed the record, and nobody else can have the
                // message. The numbered calls tell this from a commit that was done before.
                EffectFate::NotHeld
                    if !commit.only_copy
                        && self
                            .in_flight
                            .is_leased(hand_out, self.lease.get(), Instant::now()) =>
                {
                    let shown = self.in_flight.shows_removal(hand_out);
                    self.meters.lost_entries.increment(u64::from(shown));
                    commit.only_copy = true;
                    let token = hand_out.token;
                    again.push(EffectWrite {
                        commit,
                        token,
                        answer,
                    });
                }
                EffectFate::NotHeld | EffectFate::Lost => {
                    self.end_lost(hand_out, commit.acknowledges, answer);
                }
                fate => {
                    if matches!(fate, EffectFate::Differs(_)) {
                        self.meters.commit_conflicts.increment(1);
                    }
                    let abandons = answer.send(Ok(fate)).is_err() && commit.acknowledges;
                    abandoned.extend(abandons.then_some(hand_out));
                }
            }
        }
        for write in again.into_iter().rev() {
            calls.received.push_front(write);
        }
        self.give_back(&abandoned).await;
        self.meters.in_flight.set(self.in_flight.len() as f64);
    }

    /// Gives deliveries back whose worker has ended before it could run the handler again.
    async fn give_back(&self, hand_outs: &[HandOut]) {
        if hand_outs.is_empty() {
            return;
        }
        let release = |hand_out: &HandOut| match self.in_flight.begun_before(hand_out.id) {
            Some(before) => Commit::release_counted(hand_out.id, before),
            None => Commit::release(hand_out.id),
        };
        let commits: Commits = hand_outs.iter().map(release).collect();
        // If it fails, another consumer takes the deliveries over when their leases have expired.
        let _ = self.try_commit(&commits, "release").await;
        self.in_flight.remove(hand_outs.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use bytes::Bytes;

    use crate::api::SubscribeOptions;
    use crate::domain::EntryId;
    use crate::store::{DeliveryId, Effect, Lane};
    use crate::worker::core::{Core, SettledCount};
    use crate::worker::fixture::{Fixture, current, hand_out, lose};
    use crate::worker::script::Failure;

    const COMMIT: &str = "effects.commit";

    /// Starts a settler of effects.
    fn run(core: &Core, queue: mpsc::Receiver<EffectWrite>) {
        let settler = Settler::new(core, &core.faults.committing, &SettledCount::default());
        tokio::spawn(settler.commit_effects(EffectCalls::new(queue)));
    }

    fn increment(key: &str) -> Effect {
        Effect::Increment {
            key: key.to_owned(),
            by: 1,
            within: None,
        }
    }

    /// Passes the effects of the current hand-out on. Returns the answer's receiver.
    async fn send(core: &Core, id: DeliveryId, effects: Vec<Effect>) -> oneshot::Receiver<Answer> {
        send_of(core, current(core, id), effects).await
    }

    async fn send_of(
        core: &Core,
        hand_out: HandOut,
        effects: Vec<Effect>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let commit = EffectCommit {
            delivery: hand_out.id,
            acknowledges: true,
            only_copy: false,
            effects,
        };
        let token = hand_out.token;
        let write = EffectWrite {
            commit,
            token,
            answer,
        };
        core.effects.writes.send(write).await.unwrap();
        answered
    }

    async fn value(fixture: &Fixture, key: &str) -> Option<Bytes> {
        let found = fixture.store.values().get(&[key]).await.unwrap();
        found.into_iter().next().flatten()
    }

    fn one() -> Option<Bytes> {
        Some(Bytes::from_static(b"1"))
    }

    #[tokio::test]
    async fn a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        fixture.script.fail(COMMIT, Failure::ReplyLost);
        fixture.script.fail(COMMIT, Failure::NotDone);
        fixture.script.calls();
        run(&core, settlements.effects);
        let answer = send(&core, fetched[0].receipt, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Done(Vec::new()));
        assert_eq!(fixture.script.calls(), [COMMIT; 3]);
        assert_eq!(value(&fixture, "n").await, one());
        assert!(fixture.pending().await.is_empty() && core.in_flight.len() == 0);
        assert_eq!(core.faults.problem(), None);
    }

    #[tokio::test]
    async fn effects_of_an_earlier_hand_out_are_dropped_before_they_are_sent() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let earlier = current(&core, fetched[0].receipt);
        // Given back, and handed to the same consumer again: the store cannot tell them apart.
        lose(&core, earlier.id);
        hand_out(&core, &fetched, true);
        fixture.script.calls();
        run(&core, settlements.effects);
        let answer = send_of(&core, earlier, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Lost);
        assert_eq!(fixture.script.calls(), [""; 0]);
        let answer = send(&core, earlier.id, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Done(Vec::new()));
        assert_eq!(value(&fixture, "n").await, one());
    }

    #[tokio::test]
    async fn an_entry_is_not_handed_out_again_while_its_commit_is_under_way() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let id = fetched[0].receipt;
        core.queue.next().await.unwrap().lease.finish();
        // Another consumer claims it, and this one claims it back, before the call arrives.
        let (claiming, again) = (Arc::clone(&core), fetched.clone());
        fixture.script.on(COMMIT, move || {
            assert_eq!(claiming.in_flight.lose([current(&claiming, id)]), 0);
            assert_eq!(claiming.accept(again, true, Instant::now()), 0);
        });
        run(&core, settlements.effects);
        let answer = send(&core, id, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Done(Vec::new()));
        assert_eq!(value(&fixture, "n").await, one());
    }

    #[test]
    fn a_call_has_commits_of_one_partition() {
        let calls = EffectCalls::new(mpsc::channel(1).1);
        let calls = &mut *calls.try_lock().unwrap();
        let id = |number: u64, partition| EntryId::new(number, 0).in_partition(partition);
        let all = [id(1, 0), id(2, 3), id(3, 0), id(4, 5), id(5, 3)];
        for id in all {
            let commit = EffectCommit {
                delivery: DeliveryId::new(Lane::Log, id),
                acknowledges: true,
                only_copy: false,
                effects: Vec::new(),
            };
            let token = 0;
            let answer = oneshot::channel().0;
            calls.received.push_back(EffectWrite {
                commit,
                token,
                answer,
            });
        }
        let mut sent = Vec::new();
        while !calls.received.is_empty() {
            calls.begin_call();
            calls.senders.clear();
            sent.push(Vec::from_iter(
                calls.call.drain(..).map(|one| one.delivery.id),
            ));
        }
        assert_eq!(
            sent,
            [vec![all[0], all[2]], vec![all[1], all[4]], vec![all[3]]]
        );
    }

    #[tokio::test]
    async fn a_checkpoint_of_a_message_that_another_consumer_has_cancels_its_handler() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let lease = core.queue.next().await.unwrap().lease;
        lease.begin();
        fixture.take_over(fetched[0].receipt).await;
        run(&core, settlements.effects);
        let hand_out = current(&core, fetched[0].receipt);
        let (answer, answered) = oneshot::channel();
        let commit = EffectCommit {
            delivery: hand_out.id,
            acknowledges: false,
            only_copy: false,
            effects: vec![increment("n")],
        };
        let token = hand_out.token;
        let write = EffectWrite {
            commit,
            token,
            answer,
        };
        core.effects.writes.send(write).await.unwrap();
        assert_eq!(answered.await.unwrap().unwrap(), EffectFate::Lost);
        assert!(lease.is_lost() && lease.is_cancelled());
        let again = core.accept(fetched.clone(), true, Instant::now());
        assert_eq!(again, 0, "the handler still runs");
        lease.end_call();
        assert_eq!(core.accept(fetched, true, Instant::now()), 1);
    }

    #[tokio::test]
    async fn a_commit_that_the_store_refuses_does_not_refuse_the_others() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(3).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let mut answers = Vec::new();
        // The adapter refuses a call with such a key as a whole.
        for (one, key) in fetched.iter().zip(["a", "", "b"]) {
            answers.push(send(&core, one.receipt, vec![increment(key)]).await);
        }
        run(&core, settlements.effects);
        let mut done = Vec::new();
        for answer in answers {
            done.push(answer.await.unwrap().is_ok());
        }
        assert_eq!(done, [true, false, true]);
        assert_eq!(fixture.pending().await, [fetched[1].receipt]);
        assert!(core.in_flight.contains(fetched[1].receipt));
    }

    #[tokio::test]
    async fn an_only_copy_is_committed_once() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        // Something other than Redstart removes the store's record.
        let commits = [Commit::ack(fetched[0].receipt)].into_iter().collect();
        let deliveries = fixture.store.deliveries();
        let _ = deliveries.commit(&core.member, &commits).await.unwrap();
        run(&core, settlements.effects);
        fixture.script.fail(COMMIT, Failure::ReplyLost);
        fixture.script.fail(COMMIT, Failure::ReplyLost);
        let answer = send(&core, fetched[0].receipt, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Done(Vec::new()));
        assert_eq!(value(&fixture, "n").await, one());
    }

    #[tokio::test]
    async fn a_delivery_that_a_late_call_may_have_released_is_lost_with_its_record() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let id = fetched[0].receipt;
        fixture.script.fail("deliveries.commit", Failure::ReplyLost);
        core.release([id].into_iter()).await.unwrap_err();
        core.in_flight.remove([current(&core, id)]);
        // Taken over again. The call that lost its answer arrives now, and another consumer claims the
        // delivery and ends it.
        hand_out(&core, &fetched, true);
        fixture.commit(Commit::ack(id)).await;
        run(&core, settlements.effects);
        let answer = send(&core, id, vec![increment("n")]).await;
        assert_eq!(answer.await.unwrap().unwrap(), EffectFate::Lost);
        assert_eq!(value(&fixture, "n").await, None);
    }

    #[tokio::test]
    async fn a_conflict_without_its_worker_gives_the_delivery_back() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        let demand = Effect::Unchanged {
            key: "n".to_owned(),
            seen: one(),
        };
        drop(send(&core, fetched[0].receipt, vec![demand]).await);
        run(&core, settlements.effects);
        Fixture::until("the table to be empty", async || core.in_flight.len() == 0).await;
        let claimed = fixture.claimed_by_another(Duration::from_secs(3600)).await;
        assert_eq!(claimed, [(fetched[0].receipt, 0)]);
    }
}
