//! Adapters that are broken on purpose: the suite must see it.

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redstart::backend::{
    Appended, Backend, Fetched, Fields, Identified, Lane, Member, Opened, Reader, Receipt,
    ReclaimCursor, Reclaimed, Removal, Retained, Settlement,
};
use redstart::testing::conformance::{self, Subject};
use redstart::{BoxFuture, Container, EntryId, Error, Group, MemoryStore, Topic};

use support::group;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
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
    inner: Arc<dyn Backend>,
    flaw: Flaw,
    /// The fields of what was fetched.
    seen: Mutex<HashMap<(Topic, Receipt), Fields>>,
    /// Up to where a topic was trimmed.
    trimmed: Mutex<HashMap<Topic, EntryId>>,
    released: Mutex<Vec<Receipt>>,
    ids: Mutex<HashMap<(Topic, Uuid), EntryId>>,
}

#[derive(Clone, Debug)]
struct Broken {
    inner: Arc<dyn Backend>,
    state: Arc<State>,
}

impl Broken {
    fn new(inner: Arc<dyn Backend>, flaw: Flaw) -> Self {
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
    /// What is left of what a member was given.
    async fn given(&self, member: &Member, mut fetched: Vec<Fetched>) -> Vec<Fetched> {
        let mut lost = Vec::new();
        {
            let trimmed = self.trimmed.lock().unwrap();
            let cut = trimmed.get(&member.topic).copied().unwrap_or_default();
            fetched.retain(|one| {
                let kept = one.receipt.lane == Lane::Redo || one.receipt.id > cut;
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
}

impl State {
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

impl Backend for Broken {
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
                let retried = self.state.flaw == Flaw::RetriesToAll
                    && matches!(settlement, Settlement::Later { .. });
                if retried {
                    let seen = (member.topic.clone(), receipt);
                    let fields = self.state.seen.lock().unwrap()[&seen].clone();
                    let name = if &fields[0].0[..] == b"json" {
                        "json"
                    } else {
                        "msgpack"
                    };
                    let entries = vec![(name, fields[0].1.clone())];
                    self.inner.append(&member.topic, entries).await;
                    self.inner.acknowledge(member, &[receipt]).await?;
                    done.push(true);
                    continue;
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
        receipts: &'a [Receipt],
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

    fn retain<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Retained, Error>> {
        Box::pin(async move {
            if self.state.flaw == Flaw::TrimsWithoutFloor
                && let Some(newest) = self.inner.newest(topic).await?
            {
                let mut trimmed = self.state.trimmed.lock().unwrap();
                trimmed.insert(topic.clone(), newest);
            }
            self.inner.retain(topic).await
        })
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [Receipt],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>> {
        match self.state.flaw {
            Flaw::CancelsNothing => self.inner.hasten(topic, group, receipts),
            _ => self.inner.cancel(topic, group, receipts),
        }
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<Removal>, Error>> {
        let force = force || self.state.flaw == Flaw::RemovesWithoutProof;
        self.inner.remove_group(topic, group, quiet, force)
    }

    redstart::forward_backend!(inner: name, clock, clock_set, ping, ensure_topic, append,
        create_group, acknowledge, extend, holdings, promote, retain_redo, forget, scheduled,
        hasten, consumers, server, topics, status, browse, newest, graves);
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
            Ok(self.state.given(&self.member, fetched).await)
        })
    }
}

#[derive(Clone)]
struct Suspect {
    backend: Broken,
    store: MemoryStore,
    patience: Duration,
}

impl Suspect {
    fn new(flaw: Flaw, patience: Duration) -> Self {
        let store = MemoryStore::new();
        Self {
            backend: Broken::new(store.backend(None), flaw),
            store,
            patience,
        }
    }
}

impl Subject for Suspect {
    async fn container(&self, service: &str) -> Container {
        let kv = Arc::new(self.store.kv(None));
        Container::builder()
            .with_backend(Arc::new(self.backend.clone()), kv)
            .with_service(group(service))
            .connect()
            .await
            .unwrap()
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// Runs checks against an adapter with a flaw, each of which must fail, and against a sound one,
/// where each must pass.
macro_rules! catches {
    ($($name:ident: $flaw:ident by $($concern:ident::$check:ident),+;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $({
                    let sound = Suspect::new(Flaw::Sound, support::PATIENCE);
                    conformance::$concern::$check(&sound).await;
                    let suspect = Suspect::new(Flaw::$flaw, Duration::from_millis(700));
                    let tasks = tokio::task::LocalSet::new();
                    let check = tasks.spawn_local(async move {
                        let check = conformance::$concern::$check(&suspect);
                        // One that never ends has not passed either.
                        tokio::time::timeout(Duration::from_secs(20), check)
                            .await
                            .expect("the check hangs");
                    });
                    let failure = tasks.run_until(check).await.expect_err(concat!(
                        stringify!($check), " does not see ", stringify!($flaw)
                    ));
                    assert!(failure.is_panic());
                })+
            }
        )*
    };
}

catches! {
    settling_before_the_handler_has_run: SettlesOnFetch by
        settle::nothing_is_settled_before_its_handler_returns,
        settle::what_nobody_settles_comes_again,
        leases::an_expired_lease_is_taken_over_and_counted,
        shutdown::what_was_not_begun_is_given_back_uncounted;
    bringing_a_retry_to_all_groups: RetriesToAll by
        retries::a_retry_comes_back_to_its_group_alone,
        retries::what_is_due_comes_back_through_the_redo_lane;
    leases_that_never_end: LeasesNeverEnd by
        leases::an_expired_lease_is_taken_over_and_counted,
        settle::what_nobody_settles_comes_again;
    trimming_without_a_floor: TrimsWithoutFloor by
        retention::nothing_unsettled_is_removed,
        retention::entries_wait_for_the_first_group;
    counting_what_was_given_back: CountsReleases by
        leases::what_is_given_back_is_claimable_at_once_and_uncounted,
        shutdown::what_was_not_begun_is_given_back_uncounted;
    settling_for_whoever_asks: AsksNoOwner by
        settle::a_stale_settlement_is_rejected;
    forgetting_what_was_appended: ForgetsIds by
        deduplication::a_repeat_adds_nothing,
        deduplication::the_bus_tells_a_repeat;
    looking_before_appending: LooksBeforeItAppends by
        deduplication::of_concurrent_repeats_one_adds,
        deduplication::after_its_window_a_message_is_new;
    remembering_only_what_is_held: RemembersWhatItHolds by
        deduplication::a_window_outlives_its_entry;
    removing_groups_that_are_needed: RemovesWithoutProof by
        groups::a_group_that_is_needed_is_not_removed;
    bringing_back_what_was_cancelled: CancelsNothing by
        retries::what_waits_can_be_cancelled;
}
