//! Adapters that are broken on purpose: a decorator with one flaw at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redstart::store::{
    Appended, DeadLetterStore, DeliveryId, Disposition, Fetched, Fields, GroupRemoval, Identified,
    Lane, Member, Opened, Reader, ReclaimCursor, Reclaimed, Settlement, Store, Trimmed,
};
use redstart::{
    Error, ErrorKind, Group, Topic, dead_letters::DeadLetterSummary, envelope::EntryId,
    ports::BoxFuture,
};
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
}

#[derive(Debug)]
struct State {
    inner: Arc<dyn Store>,
    flaw: Flaw,
    /// The fields of what was fetched.
    seen: Mutex<HashMap<(Topic, DeliveryId), Fields>>,
    /// Up to where a topic was trimmed.
    trimmed: Mutex<HashMap<Topic, EntryId>>,
    released: Mutex<Vec<DeliveryId>>,
    ids: Mutex<HashMap<(Topic, Uuid), EntryId>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Store>, flaw: Flaw) -> Self {
        let state = State {
            inner: Arc::clone(&inner),
            flaw,
            seen: Mutex::default(),
            trimmed: Mutex::default(),
            released: Mutex::default(),
            ids: Mutex::default(),
        };
        let state = Arc::new(state);
        Self { inner, state }
    }
}

impl State {
    /// Each message dies a second time, and no more often.
    fn buries_again(&self, receipt: DeliveryId) -> bool {
        self.flaw == Flaw::BuriesAgain && receipt.lane == Lane::Log
    }

    /// What is left of what a member was given.
    async fn given(&self, member: &Member, mut fetched: Vec<Fetched>) -> Vec<Fetched> {
        let mut lost = Vec::new();
        {
            let trimmed = self.trimmed.lock().unwrap();
            let cut = trimmed.get(&member.topic).copied().unwrap_or_default();
            fetched.retain(|one| {
                let kept = one.receipt.lane == Lane::Redelivery || one.receipt.id > cut;
                if !kept {
                    lost.push(one.receipt);
                }
                kept
            });
            let mut seen = self.seen.lock().unwrap();
            for one in &fetched {
                seen.insert((member.topic.clone(), one.receipt), one.fields.clone());
            }
        }
        if self.flaw == Flaw::SettlesOnFetch {
            lost.extend(fetched.iter().map(|one| one.receipt));
        }
        self.inner.acknowledge(member, &lost).await.unwrap();
        fetched
    }

    /// Appends each entry that the flaw does not know.
    async fn append_unknown(&self, topic: &Topic, entries: Vec<Identified>) -> Vec<Appended> {
        let mut appended = Vec::new();
        for entry in entries {
            let name = (topic.clone(), entry.id);
            let known = self.ids.lock().unwrap().get(&name).copied();
            tokio::task::yield_now().await;
            let held = match known {
                Some(id) if self.flaw == Flaw::LooksBeforeItAppends => Some(id),
                Some(id) if self.flaw == Flaw::RemembersWhatItHolds => {
                    let first = self.inner.browse(topic, None, 1).await.unwrap();
                    first
                        .first()
                        .is_some_and(|(first, _)| *first <= id)
                        .then_some(id)
                }
                _ => None,
            };
            let id = match held {
                Some(id) => id,
                None => {
                    let plain = vec![(entry.name, entry.value)];
                    self.inner.append(topic, plain).await.remove(0).unwrap()
                }
            };
            self.ids.lock().unwrap().insert(name, id);
            appended.push(Appended {
                id,
                duplicate: held.is_some(),
            });
        }
        appended
    }
}

impl Store for Broken {
    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>> {
        Box::pin(async move {
            if self.state.flaw == Flaw::PublishesTwice {
                self.inner.append(topic, entries.clone()).await;
            }
            let mut results = self.inner.append(topic, entries).await;
            if self.state.flaw == Flaw::DeniesPublishing {
                for result in results.iter_mut().step_by(5) {
                    let rule = "it says that it was not";
                    *result = Err(Error::new(ErrorKind::Unavailable, "publish", rule));
                }
            }
            results
        })
    }

    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>> {
        Box::pin(async move {
            match self.state.flaw {
                Flaw::ForgetsIds | Flaw::LooksBeforeItAppends | Flaw::RemembersWhatItHolds => {
                    let appended = self.state.append_unknown(topic, entries).await;
                    appended.into_iter().map(Ok).collect()
                }
                _ => self.inner.append_once(topic, window, entries).await,
            }
        })
    }

    fn acknowledge<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>> {
        if self.state.flaw == Flaw::AcknowledgesNothing {
            return Box::pin(async { Ok(()) });
        }
        self.inner.acknowledge(member, receipts)
    }

    fn browse<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        Box::pin(async move {
            let mut found = self.inner.browse(topic, after, max).await?;
            let trimmed = self.state.trimmed.lock().unwrap();
            let cut = trimmed.get(topic).copied().unwrap_or_default();
            found.retain(|(id, _)| *id > cut);
            Ok(found)
        })
    }

    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async move {
            let (inner, interrupt) = self.inner.open(member).await?;
            let reader = BrokenReader {
                inner,
                member: member.clone(),
                state: Arc::clone(&self.state),
            };
            Ok((Box::new(reader) as Box<dyn Reader>, interrupt))
        })
    }

    fn settle<'a>(
        &'a self,
        member: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(async move {
            let mut done = Vec::new();
            for settlement in settlements {
                let receipt = settlement.receipt();
                let anew = match settlement {
                    Settlement::Reschedule { .. } => self.state.flaw == Flaw::RetriesToAll,
                    Settlement::DeadLetter { .. } => self.state.buries_again(receipt),
                };
                if anew {
                    let seen = (member.topic.clone(), receipt);
                    let fields = self.state.seen.lock().unwrap()[&seen].clone();
                    let name = if &fields[0].0[..] == b"json" {
                        "json"
                    } else {
                        "msgpack"
                    };
                    let entries = vec![(name, fields[0].1.clone())];
                    self.inner.append(&member.topic, entries).await;
                    if self.state.flaw == Flaw::RetriesToAll {
                        self.inner.acknowledge(member, &[receipt]).await?;
                        done.push(true);
                        continue;
                    }
                }
                let mut settled = self
                    .inner
                    .settle(member, std::slice::from_ref(settlement))
                    .await?;
                if self.state.flaw == Flaw::AsksNoOwner && settled == [false] {
                    // Whoever holds it loses it.
                    self.inner
                        .reclaim(member, Duration::ZERO, ReclaimCursor::default(), 100)
                        .await?;
                    settled = self
                        .inner
                        .settle(member, std::slice::from_ref(settlement))
                        .await?;
                }
                done.extend(settled);
            }
            Ok(done)
        })
    }

    fn release<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<u64, Error>> {
        self.state.released.lock().unwrap().extend(receipts);
        self.inner.release(member, receipts)
    }

    fn reclaim<'a>(
        &'a self,
        member: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>> {
        Box::pin(async move {
            let lease = match self.state.flaw {
                Flaw::LeasesNeverEnd => Duration::MAX,
                Flaw::LeasesAreNothing => Duration::ZERO,
                _ => lease,
            };
            let mut found = self.inner.reclaim(member, lease, cursor, max).await?;
            found.taken = self.state.given(member, found.taken).await;
            if self.state.flaw == Flaw::CountsReleases {
                let released = self.state.released.lock().unwrap();
                for one in &mut found.taken {
                    one.deliveries += u32::from(released.contains(&one.receipt));
                }
            }
            Ok(found)
        })
    }

    fn trim<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Trimmed, Error>> {
        Box::pin(async move {
            if self.state.flaw == Flaw::TrimsWithoutFloor
                && let Some(newest) = self.inner.newest(topic).await?
            {
                let mut trimmed = self.state.trimmed.lock().unwrap();
                trimmed.insert(topic.clone(), newest);
            }
            self.inner.trim(topic).await
        })
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        match self.state.flaw {
            Flaw::CancelsNothing => self.inner.run_now(topic, group, receipts),
            _ => self.inner.cancel(topic, group, receipts),
        }
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        let force = force || self.state.flaw == Flaw::RemovesWithoutProof;
        self.inner.remove_group(topic, group, quiet, force)
    }

    fn dead_letters(&self) -> &dyn DeadLetterStore {
        self
    }

    redstart::forward_store!(inner: name, clock, clock_set, ping, ensure_topic, create_group,
        extend, pending_of, promote, trim_redelivery, prune_consumers, scheduled, run_now, consumers, server, topics,
        status, newest);
}

impl DeadLetterStore for Broken {
    fn move_out<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        items: &'a [(EntryId, Disposition)],
        known: &'a [(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        Box::pin(async move {
            let dead_letters = self.inner.dead_letters();
            let mut taken = dead_letters
                .move_out(topic, group, items, known, operation)
                .await?;
            if self.state.flaw == Flaw::RedrivesWhatIsGone {
                taken.fill(true);
            }
            Ok(taken)
        })
    }

    redstart::forward_dead_letters!(inner: search, find, newest, restore, causes, counts, begin_operation, end_operation,
        journal);
}

#[derive(Debug)]
struct BrokenReader {
    inner: Box<dyn Reader>,
    member: Member,
    state: Arc<State>,
}

impl Reader for BrokenReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(async move {
            let fetched = self.inner.fetch(max, wait).await?;
            let mut given = self.state.given(&self.member, fetched).await;
            if self.state.flaw == Flaw::ReadsBackwards {
                given.reverse();
            }
            Ok(given)
        })
    }
}
