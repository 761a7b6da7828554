//! The backlog limit: publishing fails clearly instead of filling the server's memory.
//!
//! A measurement costs a script, so the gate does not measure for every message. Each measurement
//! grants a credit of one eighth of the free space, and each message spends one. Each concurrent
//! publisher can therefore overshoot the limit by up to one eighth of the free space.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Admitted, Gate, Measured};
use crate::domain::{Error, ErrorKind, Topic, TopicSettings};
use crate::store::{Store, Trimmed};

/// How long a measurement may take while the last one still grants something.
const MEASURED_WITHIN: Duration = Duration::from_secs(1);
/// How long a full topic counts as full without a new measurement.
const FULL_LIVES: Duration = Duration::from_millis(100);
/// How long a publisher goes by the settings that it has read.
const SETTINGS_LIVE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Backlog {
    store: Arc<dyn Store>,
    gates: RwLock<HashMap<Topic, Arc<Gate>>>,
}

impl Backlog {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            gates: RwLock::default(),
        }
    }

    fn gate(&self, topic: &Topic) -> Arc<Gate> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(topic) {
            return Arc::clone(gate);
        }
        drop(gates);
        let mut gates = self.gates.write().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(topic.clone());
        Arc::clone(gate.or_insert_with(|| Arc::new(Gate::new(topic))))
    }

    /// Admits the first messages of `wanted`. Creates the topic if it is missing.
    ///
    /// Returns how many are admitted, and why the others are not.
    pub(super) async fn admit(&self, topic: &Topic, wanted: u64) -> (Admitted, Result<(), Error>) {
        let gate = self.gate(topic);
        gate.expire();
        let mut admitted = Admitted::none(gate);
        loop {
            admitted.spend(wanted);
            let missing = wanted - admitted.count;
            if missing == 0 {
                return (admitted, Ok(()));
            }
            if let Err(error) = self.refill(topic, &admitted.gate, missing).await {
                return (admitted, Err(error));
            }
        }
    }

    /// Admits all of `wanted`, or none.
    ///
    /// Refuses more messages than the limit as [`Invalid`](ErrorKind::Invalid): waiting cannot help.
    pub(super) async fn admit_together(
        &self,
        topic: &Topic,
        wanted: u64,
    ) -> Result<Admitted, Error> {
        let (admitted, refusal) = self.admit(topic, wanted).await;
        let Err(error) = refusal else {
            return Ok(admitted);
        };
        let measured = *admitted.gate.measured.lock().await;
        let limit = measured.map(|last| last.settings.backlog_limit());
        match limit.filter(|limit| *limit < wanted) {
            Some(limit) => {
                let rule = format!(
                    "{wanted} messages of one commit can never fit into the topic's backlog limit \
                     of {limit}"
                );
                Err(Error::new(ErrorKind::Invalid, "publish", rule).on(topic.as_str()))
            }
            None => Err(error),
        }
    }

    async fn refill(&self, topic: &Topic, gate: &Gate, wanted: u64) -> Result<(), Error> {
        let mut measured = gate.measured.lock().await;
        let full = || {
            let rule = "backlog full: groups have not settled the topic's messages; \
                        let them catch up or raise the topic's backlog limit";
            Err(Error::new(ErrorKind::BacklogFull, "publish", rule).on(topic.as_str()))
        };
        if gate.credit.load(Ordering::Acquire) > 0 {
            // Another caller refilled it while this one waited for the lock.
            return Ok(());
        }
        if measured.is_some_and(|last| last.full && last.at.elapsed() < FULL_LIVES) {
            return full();
        }
        let (settings, read) = match *measured {
            // Of a full topic, an operator may have raised the limit.
            Some(last) if !last.full && last.read.elapsed() < SETTINGS_LIVE => {
                (last.settings, last.read)
            }
            None => {
                let settings = TopicSettings::default();
                (self.ensure(topic, gate, settings).await?, Instant::now())
            }
            Some(last) => {
                let ensured = in_haste(self.ensure(topic, gate, last.settings)).await;
                let settings = match ensured {
                    // The server that lists the topics may be away while that of this topic works.
                    Err(error) if error.kind() == ErrorKind::Unavailable => last.settings,
                    ensured => ensured?,
                };
                (settings, Instant::now())
            }
        };
        let expired = gate.expired.load(Ordering::Acquire);
        // Read before the measurement. A message that arrives between the two then counts twice; read
        // after it, the message would not count at all.
        let under_way = gate.under_way.load(Ordering::Acquire);
        let state = match self.measure(gate, expired > 0).await {
            Ok(state) => state,
            // The slot of the topic moves, or its server fails over. A publish may still work, and
            // the last measurement bounds it.
            Err(error) if expired > 0 && error.kind() == ErrorKind::Unavailable => {
                gate.grant(expired);
                return Ok(());
            }
            Err(error) => return Err(nothing_appended(error, topic)),
        };
        let settings = if state.known {
            settings
        } else {
            self.ensure(topic, gate, settings).await?
        };
        let used = state.backlog + under_way;
        let free = settings.backlog_limit().saturating_sub(used);
        *measured = Some(Measured {
            at: Instant::now(),
            settings,
            read,
            full: free == 0,
        });
        if free == 0 {
            return full();
        }
        gate.grant(credit(free, wanted));
        Ok(())
    }

    /// Creates the topic if it is missing, and notes how many partitions it has.
    async fn ensure(
        &self,
        topic: &Topic,
        gate: &Gate,
        settings: TopicSettings,
    ) -> Result<TopicSettings, Error> {
        let held = self.store.topics().ensure_topic(topic, settings).await;
        let held = held.map_err(|e| nothing_appended(e, topic))?;
        gate.is_split
            .store(held.partitions() > 1, Ordering::Release);
        Ok(held)
    }

    async fn measure(&self, gate: &Gate, has_credit: bool) -> Result<Trimmed, Error> {
        let topics = self.store.topics();
        let measuring = async {
            // A measurement appends nothing, so repeating it after a lost answer is safe.
            match topics.trim(&gate.at).await {
                Err(error) if error.is_outcome_unknown() => topics.trim(&gate.at).await,
                measured => measured,
            }
        };
        match has_credit {
            true => in_haste(measuring).await,
            false => measuring.await,
        }
    }
}

/// Gives a call up that takes too long, where an earlier answer can stand in for it.
async fn in_haste<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answer = tokio::time::timeout(MEASURED_WITHIN, call).await;
    answer.unwrap_or_else(|_| {
        let rule = "the store did not measure the backlog in time";
        Err(Error::new(ErrorKind::Unavailable, "publish", rule))
    })
}

/// The credit that a measurement grants: an eighth of the free space, or what the caller wants if
/// that is more and fits.
fn credit(free: u64, wanted: u64) -> u64 {
    (free / 8).max(wanted.min(free))
}

/// Turns an unknown outcome into a definite failure: no message has been sent yet.
pub(super) fn nothing_appended(error: Error, topic: &Topic) -> Error {
    if !error.is_outcome_unknown() {
        return error;
    }
    let rule = "the backlog could not be measured; nothing was published";
    Error::new(ErrorKind::Unavailable, "publish", rule)
        .on(topic.as_str())
        .because(error)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{NewEntry, Partition, TopicsOp};

    #[test]
    fn a_credit_is_an_eighth_of_the_free_space_or_what_fits_of_the_wish() {
        assert_eq!(credit(800, 1), 100);
        assert_eq!(credit(800, 300), 300);
        assert_eq!(credit(4, 1), 1);
        assert_eq!(credit(4, 9), 4);
        assert_eq!(credit(0, 9), 0);
    }

    #[test]
    fn an_unknown_outcome_before_the_append_is_a_definite_failure() {
        let topic = Topic::new("orders").unwrap();
        let of = |kind| nothing_appended(Error::new(kind, "measure", "cut"), &topic).kind();
        assert_eq!(of(ErrorKind::OutcomeUnknown), ErrorKind::Unavailable);
        assert_eq!(of(ErrorKind::Refused), ErrorKind::Refused);
    }

    async fn limited_to(limit: u64) -> (Topic, Arc<dyn Store>) {
        let (topic, store) = (
            Topic::new("orders").unwrap(),
            MemoryStore::new().store(None),
        );
        let settings = TopicSettings::default().with_backlog_limit(limit);
        store.topics().ensure_topic(&topic, settings).await.unwrap();
        (topic, store)
    }

    async fn append(store: &Arc<dyn Store>, at: &Partition, count: usize) {
        let entry = NewEntry {
            id: uuid::Uuid::nil(),
            name: "json",
            value: Bytes::from_static(b"{}"),
            slot: None,
        };
        let appended = store.log().append(at, &vec![entry; count]).await;
        assert_eq!(appended.unwrap().len(), count);
    }

    #[tokio::test]
    async fn messages_under_way_count_against_the_limit_until_they_are_dropped() {
        let (topic, store) = limited_to(10).await;
        let backlog = Backlog::new(store);
        let (first, refusal) = backlog.admit(&topic, 6).await;
        assert_eq!((first.count, refusal.is_ok()), (6, true));
        let (second, refusal) = backlog.admit(&topic, 6).await;
        assert_eq!(second.count, 4);
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
        drop((first, second));
        // Nothing was appended, so all of it is free again after the full topic is measured again.
        tokio::time::sleep(FULL_LIVES).await;
        let (third, refusal) = backlog.admit(&topic, 10).await;
        assert_eq!((third.count, refusal.is_ok()), (10, true));
    }

    #[tokio::test]
    async fn messages_that_go_together_are_refused_for_good_where_they_can_never_fit() {
        let (topic, store) = limited_to(3).await;
        let backlog = Backlog::new(store);
        let admitted = backlog.admit_together(&topic, 3).await.unwrap();
        let full = backlog.admit_together(&topic, 1).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::BacklogFull);
        drop(admitted);
        let never = backlog.admit_together(&topic, 4).await.unwrap_err();
        assert_eq!(never.kind(), ErrorKind::Invalid, "{never}");
    }

    #[tokio::test]
    async fn the_backlog_of_the_topic_counts() {
        let (topic, store) = limited_to(10).await;
        append(&store, &Partition::of(&topic), 7).await;
        let (admitted, refusal) = Backlog::new(store).admit(&topic, 5).await;
        assert_eq!(admitted.count, 3);
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
    }

    #[tokio::test]
    async fn a_topic_with_one_partition_is_published_to_without_a_look_for_others() {
        for (partitions, is_whole) in [(1, false), (4, true)] {
            let (topic, store) = limited_to(10).await;
            let (orders, bills) = (topic, Topic::new("bills").unwrap());
            let settings = TopicSettings::default().with_partitions(partitions);
            let made = store.topics().ensure_topic(&bills, settings).await;
            assert_eq!(made.unwrap().partitions(), partitions);
            let backlog = Backlog::new(store);
            let (admitted, _) = backlog.admit(&bills, 1).await;
            assert_eq!(admitted.at().is_whole(), is_whole, "{partitions}");
            let (admitted, _) = backlog.admit(&orders, 1).await;
            assert!(!admitted.at().is_whole());
        }
    }

    #[tokio::test]
    async fn a_full_topic_takes_messages_once_its_limit_is_raised() {
        let (topic, store) = limited_to(1).await;
        append(&store, &Partition::of(&topic), 1).await;
        let backlog = Backlog::new(Arc::clone(&store));
        let (_, refusal) = backlog.admit(&topic, 1).await;
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
        let raised = TopicSettings::default().with_backlog_limit(10);
        store
            .topics()
            .change_settings(&topic, raised)
            .await
            .unwrap();
        tokio::time::sleep(FULL_LIVES).await;
        let (admitted, refusal) = backlog.admit(&topic, 1).await;
        assert_eq!((admitted.count, refusal.is_ok()), (1, true));
    }

    /// A store where messages arrive right after a measurement, before their publisher reads its answer.
    #[derive(Debug)]
    struct Arriving {
        store: Arc<dyn Store>,
        admitted: std::sync::Mutex<Option<Admitted>>,
    }

    impl Decorator for Arriving {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> crate::domain::BoxFuture<'a, Result<Answer, Error>> {
            let measures = matches!(op, Op::Topics(TopicsOp::Trim { .. }));
            Box::pin(async move {
                let answer = next.run(op).await;
                let arrives = self.admitted.lock().unwrap().take_if(|_| measures);
                if let Some(admitted) = arrives {
                    append(&self.store, admitted.at(), admitted.count as usize).await;
                }
                answer
            })
        }
    }

    #[tokio::test]
    async fn messages_that_arrive_during_a_measurement_count() {
        let (topic, store) = limited_to(5).await;
        let arriving = Arc::new(Arriving {
            store: Arc::clone(&store),
            admitted: std::sync::Mutex::default(),
        });
        let backlog = Backlog::new(Arc::new(Decorated::new(arriving.clone(), store)));
        let (first, refusal) = backlog.admit(&topic, 3).await;
        assert_eq!((first.count, refusal.is_ok()), (3, true));
        *arriving.admitted.lock().unwrap() = Some(first);
        let (second, refusal) = backlog.admit(&topic, 3).await;
        assert_eq!(second.count, 2);
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
    }

    /// A store that cannot measure while a flag is set.
    #[derive(Debug)]
    struct Moving(std::sync::atomic::AtomicBool);

    impl Decorator for Moving {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> crate::domain::BoxFuture<'a, Result<Answer, Error>> {
            if matches!(op, Op::Topics(TopicsOp::Trim { .. })) && self.0.load(Ordering::Acquire) {
                let error = Error::new(ErrorKind::Unavailable, "trim", "the slot moves");
                return Box::pin(async { Err(error) });
            }
            next.run(op)
        }
    }

    #[tokio::test]
    async fn an_expired_credit_is_spent_while_the_store_cannot_measure() {
        let (topic, store) = limited_to(80).await;
        let moving = Arc::new(Moving(false.into()));
        let backlog = Backlog::new(Arc::new(Decorated::new(moving.clone(), store)));
        drop(backlog.admit(&topic, 1).await);
        moving.0.store(true, Ordering::Release);
        let gate = backlog.gate(&topic);
        gate.expires.store(0, Ordering::Relaxed);
        while gate.age() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The measurement granted ten, and one was spent.
        let (admitted, refusal) = backlog.admit(&topic, 12).await;
        assert_eq!(admitted.count, 9, "not more than was granted");
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unavailable);
        moving.0.store(false, Ordering::Release);
        let (_, refusal) = backlog.admit(&topic, 12).await;
        assert!(refusal.is_ok());
    }

    /// A store whose list of topics is out of reach.
    #[derive(Debug)]
    struct Unlisted;

    impl Decorator for Unlisted {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> crate::domain::BoxFuture<'a, Result<Answer, Error>> {
            if matches!(op, Op::Topics(TopicsOp::EnsureTopic { .. })) {
                let error = Error::new(ErrorKind::Unavailable, "create", "its primary is away");
                return Box::pin(async { Err(error) });
            }
            next.run(op)
        }
    }

    #[tokio::test]
    async fn a_known_topic_needs_no_list_of_topics() {
        let (topic, store) = limited_to(80).await;
        let listed = Backlog::new(Arc::clone(&store));
        drop(listed.admit(&topic, 1).await);
        let known = *listed.gate(&topic).measured.lock().await;
        let backlog = Backlog::new(Arc::new(Decorated::new(Arc::new(Unlisted), store)));
        let (_, refusal) = backlog.admit(&topic, 1).await;
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unavailable);
        *backlog.gate(&topic).measured.lock().await = known.map(|mut known| {
            known.read -= SETTINGS_LIVE;
            known
        });
        let (admitted, refusal) = backlog.admit(&topic, 100).await;
        assert_eq!(admitted.count, 80, "the limit that was known");
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
    }

    #[tokio::test]
    async fn a_credit_expires_because_other_processes_publish_meanwhile() {
        let (topic, store) = limited_to(80).await;
        let backlog = Backlog::new(Arc::clone(&store));
        let (first, refusal) = backlog.admit(&topic, 1).await;
        assert!(refusal.is_ok());
        drop(first);
        append(&store, &Partition::of(&topic), 80).await;
        let (second, refusal) = backlog.admit(&topic, 1).await;
        assert_eq!(
            (second.count, refusal.is_ok()),
            (1, true),
            "by the first credit"
        );
        let gate = backlog.gate(&topic);
        gate.expires.store(0, Ordering::Relaxed);
        while gate.age() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (third, refusal) = backlog.admit(&topic, 1).await;
        assert_eq!(third.count, 0);
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::BacklogFull);
    }
}
