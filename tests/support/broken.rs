//! Adapters that are broken on purpose: a decorator with one flaw at a time.

use std::collections::{HashMap, HashSet};
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{
    Appended, Commit, Commits, DeadLettersAnswer, DeadLettersOp, Deliveries, DeliveriesAnswer,
    DeliveriesOp, DeliveryId, EffectStoreOp, End, Fate, Fetched, Fields, GroupAt, Lane, Log,
    LogAnswer, LogOp, Member, NewEntry, Partition, ReclaimCursor, Replies, ScheduleAnswer,
    ScheduleOp, Session, Store, TopicsAnswer, TopicsOp, Unmarked,
};
use redstart::{Error, ErrorKind, envelope::EntryId, ports::BoxFuture};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    /// None: the decorator itself is sound.
    Sound,
    /// Acknowledges before the handler has run.
    SettlesOnFetch,
    /// Brings a retry back through the log, where every group reads it.
    RetriesToAll,
    /// Never takes anything over but what was given back.
    LeasesNeverEnd,
    /// Removes what groups have not settled.
    TrimsWithoutFloor,
    /// Counts a delivery that was given back.
    CountsReleases,
    /// Counts two attempts whenever a consumer takes a delivery over.
    CountsClaims,
    /// Settles whoever asks.
    AsksNoOwner,
    /// Says of one message in five that it was not published, when it was.
    DeniesPublishing,
    /// Publishes twice.
    PublishesTwice,
    /// Says that it has acknowledged, and has not.
    AcknowledgesNothing,
    /// Takes over what another is at work on.
    LeasesAreNothing,
    /// Lets a message that has died come anew.
    BuriesAgain,
    /// Finds a dead letter that another has moved, and moves it again.
    RedrivesWhatIsGone,
    /// Hands out what it reads from the newest on.
    ReadsBackwards,
    /// Appends what it has appended before.
    ForgetsIds,
    /// Looks for an id and appends in two steps.
    LooksBeforeItAppends,
    /// Ends a message's window with its entry.
    RemembersWhatItHolds,
    /// Removes groups that are needed.
    RemovesWithoutProof,
    /// Brings back what was to be removed.
    CancelsNothing,
    /// Writes the effects of a repeated call again.
    RepeatsEffects,
}

#[derive(Debug)]
pub(crate) struct Broken {
    flaw: Flaw,
    /// The fields of each delivery.
    seen: Mutex<HashMap<(GroupAt, DeliveryId), Fields>>,
    /// Up to where a topic was trimmed.
    trimmed: Mutex<HashMap<Partition, EntryId>>,
    released: Mutex<Vec<DeliveryId>>,
    /// The bodies that have died once.
    buried: Mutex<HashSet<(GroupAt, Vec<u8>)>>,
    ids: Mutex<HashMap<(Partition, Uuid), EntryId>>,
    /// The calls of effects whose first answer was lost.
    unanswered: Mutex<HashSet<(Member, u64)>>,
}

impl Broken {
    /// A store with one flaw.
    pub(crate) fn store(inner: Arc<dyn Store>, flaw: Flaw) -> Arc<dyn Store> {
        let broken = Self {
            flaw,
            seen: Mutex::default(),
            trimmed: Mutex::default(),
            released: Mutex::default(),
            buried: Mutex::default(),
            ids: Mutex::default(),
            unanswered: Mutex::default(),
        };
        Arc::new(Decorated::new(Arc::new(broken), inner))
    }

    fn trimmed_up_to(&self, partition: &Partition) -> EntryId {
        let trimmed = self.trimmed.lock().unwrap();
        trimmed.get(partition).copied().unwrap_or_default()
    }

    /// The entries that a member gets of those that it was given.
    async fn given(
        &self,
        deliveries: &dyn Deliveries,
        by: &Member,
        mut fetched: Vec<Fetched>,
    ) -> Vec<Fetched> {
        let mut lost = Vec::new();
        {
            let cut = self.trimmed_up_to(&by.at.partition);
            fetched.retain(|one| {
                let kept = one.receipt.lane == Lane::Redelivery || one.receipt.id > cut;
                if !kept {
                    lost.push(one.receipt);
                }
                kept
            });
            let mut seen = self.seen.lock().unwrap();
            for one in &fetched {
                seen.insert((by.at.clone(), one.receipt), one.fields.clone());
            }
        }
        if self.flaw == Flaw::SettlesOnFetch {
            lost.extend(fetched.iter().map(|one| one.receipt));
        }
        let lost: Commits = lost.into_iter().map(Commit::ack).collect();
        let replies = deliveries.commit(by, &lost).await.unwrap();
        replies.answered().unwrap();
        fetched
    }

    /// Appends each entry that the flaw does not know.
    async fn append_unknown(
        &self,
        log: &dyn Log,
        at: &Partition,
        entries: &[NewEntry],
    ) -> Vec<Result<Appended, Error>> {
        let mut appended = Vec::new();
        for entry in entries {
            let name = (at.clone(), entry.id);
            let known = self.ids.lock().unwrap().get(&name).copied();
            tokio::task::yield_now().await;
            let existing = match known {
                Some(id) if self.flaw == Flaw::LooksBeforeItAppends => Some(id),
                Some(id) if self.flaw == Flaw::RemembersWhatItHolds => {
                    let first = log.browse(at, None, 1).await.unwrap();
                    let first = first.first();
                    first.is_some_and(|(first, _)| *first <= id).then_some(id)
                }
                _ => None,
            };
            let id = match existing {
                Some(id) => id,
                None => append_one(log, at, entry).await,
            };
            self.ids.lock().unwrap().insert(name, id);
            appended.push(Ok(Appended {
                id,
                duplicate: existing.is_some(),
            }));
        }
        appended
    }

    /// Ends one delivery, as the flaw wants it.
    async fn end_one(
        &self,
        store: &dyn Store,
        by: &Member,
        commit: &Commit,
    ) -> Result<Fate, Error> {
        let (deliveries, receipt) = (store.deliveries(), commit.delivery());
        let to_all = self.flaw == Flaw::RetriesToAll;
        let comes_again = match commit.end() {
            End::Reschedule { .. } => to_all,
            // Each message dies a second time, and no more often.
            End::DeadLetter(_) if self.flaw == Flaw::BuriesAgain && receipt.lane == Lane::Log => {
                let fields = &self.seen.lock().unwrap()[&(by.at.clone(), receipt)];
                let body = (by.at.clone(), fields[0].1.to_vec());
                self.buried.lock().unwrap().insert(body)
            }
            _ => false,
        };
        if comes_again {
            let fields = self.seen.lock().unwrap()[&(by.at.clone(), receipt)].clone();
            let is_json = &fields[0].0[..] == b"json";
            let entry = NewEntry {
                id: Uuid::nil(),
                name: if is_json { "json" } else { "msgpack" },
                value: fields[0].1.clone(),
                slot: None,
            };
            append_one(store.log(), &by.at.partition, &entry).await;
            if to_all {
                commit_one(deliveries, by, Commit::ack(receipt)).await?;
                return Ok(Fate::Done);
            }
        }
        let fate = commit_one(deliveries, by, commit.clone()).await?;
        if self.flaw == Flaw::AsksNoOwner && fate == Fate::Lost {
            // Its holder loses it.
            deliveries
                .claim_expired(
                    by,
                    Duration::ZERO,
                    Unmarked::Begun,
                    ReclaimCursor::default(),
                    100,
                )
                .await?;
            return commit_one(deliveries, by, commit.clone()).await;
        }
        Ok(fate)
    }
}

/// Loses the first answer to every second call, and writes its effects again when it is repeated.
async fn repeat_effects(
    unanswered: &Mutex<HashSet<(Member, u64)>>,
    store: &dyn Store,
    op: EffectStoreOp<'_>,
    mut next: Next<'_>,
) -> Result<Answer, Error> {
    let EffectStoreOp::Commit {
        by,
        number,
        commits,
    } = op
    else {
        return next.run(Op::EffectStore(op)).await;
    };
    let loses = number % 2 == 0 && unanswered.lock().unwrap().insert((by.clone(), number));
    let answer = next.run(Op::EffectStore(op)).await?;
    if loses {
        let rule = "the answer was lost";
        return Err(Error::new(ErrorKind::OutcomeUnknown, "commit", rule));
    }
    if number % 2 == 0 {
        let session = Session {
            id: Uuid::now_v7(),
            number: 1,
        };
        let lists: Vec<_> = commits.iter().map(|one| one.effects.clone()).collect();
        store.effects().apply(session, &lists).await?;
    }
    Ok(answer)
}

async fn commit_one(
    deliveries: &dyn Deliveries,
    by: &Member,
    commit: Commit,
) -> Result<Fate, Error> {
    let commits = Commits::from_iter([commit]);
    let fates = deliveries.commit(by, &commits).await?.answered()?;
    Ok(fates.first().copied().unwrap_or(Fate::Done))
}

async fn append_one(log: &dyn Log, at: &Partition, entry: &NewEntry) -> EntryId {
    let appended = log.append(at, slice::from_ref(entry)).await.unwrap();
    appended.into_iter().next().unwrap().unwrap().id
}

impl Decorator for Broken {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let (store, flaw) = (next.store, self.flaw);
            let mut run = op;
            match op {
                Op::Log(LogOp::Append { .. }) if flaw == Flaw::PublishesTwice => {
                    next.run(op).await?;
                }
                Op::Log(LogOp::AppendOnce { at, entries, .. })
                    if matches!(
                        flaw,
                        Flaw::ForgetsIds | Flaw::LooksBeforeItAppends | Flaw::RemembersWhatItHolds
                    ) =>
                {
                    let appended = self.append_unknown(store.log(), at, entries).await;
                    return Ok(Answer::Log(LogAnswer::AppendOnce(appended)));
                }
                Op::EffectStore(op) if flaw == Flaw::RepeatsEffects => {
                    return repeat_effects(&self.unanswered, store, op, next).await;
                }
                Op::Deliveries(DeliveriesOp::Commit { by, commits }) => {
                    if flaw != Flaw::AcknowledgesNothing {
                        let acks = commits.acks().iter().copied().map(Commit::ack);
                        let acks: Commits = acks.collect();
                        store.deliveries().commit(by, &acks).await?.answered()?;
                    }
                    let mut fenced = Vec::new();
                    for commit in commits.fenced() {
                        if let End::Release { .. } = commit.end() {
                            self.released.lock().unwrap().push(commit.delivery());
                        }
                        fenced.push(self.end_one(store, by, commit).await);
                    }
                    let acks = Ok(Fate::Done);
                    let replies = Replies { acks, fenced };
                    return Ok(Answer::Deliveries(DeliveriesAnswer::Commit(replies)));
                }
                Op::Deliveries(DeliveriesOp::ClaimExpired {
                    by,
                    lease,
                    unmarked,
                    cursor,
                    max,
                }) => {
                    let lease = match flaw {
                        Flaw::LeasesNeverEnd => Duration::MAX,
                        Flaw::LeasesAreNothing => Duration::ZERO,
                        _ => lease,
                    };
                    run = Op::Deliveries(DeliveriesOp::ClaimExpired {
                        by,
                        lease,
                        unmarked,
                        cursor,
                        max,
                    });
                }
                Op::Topics(TopicsOp::SetLease { by, .. }) if flaw == Flaw::LeasesAreNothing => {
                    let lease = Duration::from_millis(1);
                    run = Op::Topics(TopicsOp::SetLease { by, lease });
                }
                Op::Topics(TopicsOp::Trim { at } | TopicsOp::TrimInTurn { at, .. })
                    if flaw == Flaw::TrimsWithoutFloor =>
                {
                    if let Some(newest) = store.log().newest(at).await? {
                        self.trimmed.lock().unwrap().insert(at.clone(), newest);
                    }
                }
                Op::Topics(TopicsOp::RemoveGroup { at, quiet, force }) => {
                    let force = force || flaw == Flaw::RemovesWithoutProof;
                    run = Op::Topics(TopicsOp::RemoveGroup { at, quiet, force });
                }
                Op::Schedule(ScheduleOp::Cancel { at, receipts })
                    if flaw == Flaw::CancelsNothing =>
                {
                    let moved = store.schedule().run_now(at, receipts).await?;
                    return Ok(Answer::Schedule(ScheduleAnswer::Cancel(moved)));
                }
                _ => {}
            }
            let mut answer = next.run(run).await?;
            match (op, &mut answer) {
                (_, Answer::Log(LogAnswer::Append(results))) if flaw == Flaw::DeniesPublishing => {
                    for result in results.iter_mut().step_by(5) {
                        let rule = "it says that it was not";
                        *result = Err(Error::new(ErrorKind::Unavailable, "publish", rule));
                    }
                }
                (Op::Log(LogOp::Browse { at, .. }), Answer::Log(LogAnswer::Browse(found))) => {
                    let cut = self.trimmed_up_to(at);
                    found.retain(|(id, _)| *id > cut);
                }
                (Op::Fetch { opening, .. }, Answer::Fetch(fetched)) => {
                    let by = Member {
                        at: GroupAt {
                            partition: opening.sources[0].partition.clone(),
                            group: opening.group.clone(),
                        },
                        consumer: opening.consumer.clone(),
                    };
                    let taken = std::mem::take(fetched);
                    *fetched = self.given(store.deliveries(), &by, taken).await;
                    if flaw == Flaw::ReadsBackwards {
                        fetched.reverse();
                    }
                }
                (
                    Op::Topics(TopicsOp::SetLease { lease, .. }),
                    Answer::Topics(TopicsAnswer::SetLease(stored)),
                ) if flaw == Flaw::LeasesAreNothing => *stored = lease,
                (
                    Op::Deliveries(DeliveriesOp::ClaimExpired { by, lease, .. }),
                    Answer::Deliveries(DeliveriesAnswer::ClaimExpired(found)),
                ) => {
                    if flaw == Flaw::LeasesAreNothing {
                        found.lease = lease;
                    }
                    let taken = std::mem::take(&mut found.taken);
                    found.taken = self.given(store.deliveries(), by, taken).await;
                    if flaw == Flaw::CountsClaims {
                        for one in &mut found.taken {
                            one.attempts.begun += 2;
                        }
                    }
                    if flaw == Flaw::CountsReleases {
                        let released = self.released.lock().unwrap();
                        for one in &mut found.taken {
                            one.attempts.begun += u32::from(released.contains(&one.receipt));
                        }
                    }
                }
                (
                    Op::DeadLetters(DeadLettersOp::MoveOut { .. }),
                    Answer::DeadLetters(DeadLettersAnswer::MoveOut(moved)),
                ) if flaw == Flaw::RedrivesWhatIsGone => moved.fill(true),
                _ => {}
            }
            Ok(answer)
        })
    }
}
