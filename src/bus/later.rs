//! Scheduling messages: validate → hooks → encode → put beside the topic's log.

use std::time::Duration;

use metrics::counter;

use super::backlog::nothing_appended;
use super::draft::{Hooked, begin};
use super::publish::Publishing;
use crate::domain::{
    Durability, Envelope, Error, ErrorKind, ScheduleId, ScheduleOptions, Scheduled, Timestamp,
    Topic, TopicSettings, When,
};
use crate::store::batch::batches;
use crate::store::{LaterPut, NewLater, Partition};
use crate::wire::Arena;

const OPERATION: &str = "schedule";

/// The error of a topic that keeps as many messages for later as it may, or of one of its partitions.
fn full_of(topic: &Topic, partition: u16, partitions: u16, most: u64) -> Error {
    let rule = match partitions {
        1 => format!(
            "the topic keeps {most} messages for later, as many as its backlog limit; nothing was \
             scheduled"
        ),
        _ => format!(
            "partition {partition} of {partitions} keeps {most} messages for later, its equal part of \
             the topic's backlog limit; the message belongs there by its key, or by its id if it has no key; \
             nothing was scheduled"
        ),
    };
    Error::new(ErrorKind::BacklogFull, OPERATION, rule).on(topic.as_str())
}

/// The same for effects: the store does not report the limit.
pub(super) fn effects_full_of(topic: &str, partition: Option<u16>) -> Error {
    let rule = match partition {
        None => {
            "the topic keeps as many messages for later as its backlog limit; nothing was scheduled"
                .to_owned()
        }
        Some(number) => format!(
            "partition {number} keeps as many messages for later as its equal part of the topic's \
             backlog limit; the message belongs there by its key, or by its id if it has no key; nothing was \
             scheduled"
        ),
    };
    Error::new(ErrorKind::BacklogFull, OPERATION, rule).on(topic)
}

fn no_result(topic: &Topic) -> Error {
    let rule = "the store gave no result for this message";
    Error::new(ErrorKind::OutcomeUnknown, OPERATION, rule).on(topic.as_str())
}

impl Publishing {
    /// Schedules messages of one topic. One result for each, in the same order.
    pub(super) async fn schedule(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        due: When,
        options: &ScheduleOptions,
    ) -> Vec<Result<Scheduled, Error>> {
        let checked = self.check_schedule(envelopes.len(), due, options);
        let results = match checked {
            Ok(level) => {
                let sending = self.schedule_checked(topic, envelopes, (due, level), options);
                sending.await
            }
            Err(error) => vec![Err(error.on(topic.as_str())); envelopes.len()],
        };
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let kind = error.kind().as_str();
            counter!("redstart_publish_failed_total", "topic" => topic.to_string(), "kind" => kind)
                .increment(1);
        }
        let scheduled = results.iter().flatten().filter(|done| !done.kept);
        counter!("redstart_scheduled_total", "topic" => topic.to_string())
            .increment(scheduled.count() as u64);
        results
    }

    fn check_schedule(
        &self,
        count: usize,
        due: When,
        options: &ScheduleOptions,
    ) -> Result<Durability, Error> {
        self.check_open("bus")?;
        due.check(OPERATION)?;
        if count > 1 && options.has_id() {
            let rule = "an id names one message; several messages have the ids of their envelopes";
            return Err(Error::new(ErrorKind::Invalid, OPERATION, rule));
        }
        options.durability(self.durability)
    }

    async fn schedule_checked(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        (due, level): (When, Durability),
        options: &ScheduleOptions,
    ) -> Vec<Result<Scheduled, Error>> {
        let traced = self.with_trace(envelopes);
        let mut hooked = Vec::new();
        let encoded = traced
            .iter()
            .map(|envelope| self.encode_later(topic, envelope, (due, options), &mut hooked));
        let encoded: Vec<Result<NewLater, Error>> = encoded.collect();
        let messages: Vec<NewLater> = encoded.iter().flatten().cloned().collect();
        let mut puts = self.put(topic, level, &messages).await.into_iter();
        let done = encoded.into_iter().map(|encoded| {
            let message = encoded?;
            let put = puts.next().unwrap_or_else(|| Err(no_result(topic)))?;
            self.scheduled(topic, message.id, put)
        });
        let done: Vec<Result<Scheduled, Error>> = done.collect();
        for (message, done) in hooked.iter().zip(&done) {
            if let Err(error) = done {
                let refused = Err(error.clone());
                self.hooks.after(topic, &message.envelope, &refused);
            }
        }
        done
    }

    /// A hook may change the envelope; the id is that of the envelope which the caller passed, who cancels
    /// the message by it. With hooks, adds the message to those that they have seen.
    pub(super) fn encode_later(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        (due, options): (When, &ScheduleOptions),
        hooked: &mut Vec<Hooked>,
    ) -> Result<NewLater, Error> {
        let encode = |envelope: &Envelope| {
            let (name, value) = self.encoder.encode(envelope, &mut Arena::new(1))?;
            Ok::<_, Error>((name, value, envelope.slot()))
        };
        let (name, value, slot) = if self.hooks.is_empty() {
            encode(&begin(envelope))?
        } else {
            let mut envelope = envelope.clone();
            envelope.reset_attempts();
            let accepted = self.hooks.before(topic, &mut envelope);
            let encoded = accepted.and_then(|()| encode(&envelope));
            hooked.push(Hooked {
                topic: topic.clone(),
                envelope,
                is_later: true,
            });
            encoded?
        };
        Ok(NewLater {
            id: options.id_of(envelope),
            due,
            keeps: options.keeps(),
            name,
            value,
            slot,
        })
    }

    /// Makes this container look at a topic when a message of it is due.
    pub(super) fn due_in(&self, topic: &Topic, delay: Duration) {
        if !self.dues().look(topic, delay) {
            self.later.watch.due_in(topic, delay);
        }
    }

    /// Puts messages beside the log, in as many calls of the store as they need. One result for each:
    /// after a failed call no other is made.
    async fn put(
        &self,
        topic: &Topic,
        level: Durability,
        messages: &[NewLater],
    ) -> Vec<Result<LaterPut, Error>> {
        let mut results = Vec::with_capacity(messages.len());
        for batch in batches(messages, |message| message.value.len()) {
            let asked_for = results.len() + batch.len();
            match self.put_batch(topic, level, batch).await {
                Ok(puts) => results.extend(puts.into_iter().map(Ok)),
                Err(error) => {
                    results.resize(asked_for, Err(error));
                    let rule = "a message before it in the same call failed; it was not sent";
                    let skipped = Error::new(ErrorKind::Unavailable, OPERATION, rule);
                    results.resize(messages.len(), Err(skipped.on(topic.as_str())));
                    break;
                }
            }
            // A store that answers too little must not shift the results of the messages after it.
            results.resize(asked_for, Err(no_result(topic)));
        }
        results
    }

    /// Puts messages in one call. Creates the topic if it is missing.
    async fn put_batch(
        &self,
        topic: &Topic,
        level: Durability,
        messages: &[NewLater],
    ) -> Result<Vec<LaterPut>, Error> {
        let at = Partition::of(topic);
        let known = self.later.know_partitions(topic).await;
        known.map_err(|error| nothing_appended(error, topic))?;
        let mut puts = self.store.later().put(&at, level, messages).await?;
        if !puts.contains(&LaterPut::NoTopic) {
            return Ok(puts);
        }
        let settings = TopicSettings::default();
        let ensured = self.store.topics().ensure_topic(topic, settings).await;
        ensured.map_err(|error| nothing_appended(error, topic))?;
        // One partition may lack its settings where the others have put their messages.
        let missing = puts.iter_mut().zip(messages);
        let missing = missing.filter(|(put, _)| **put == LaterPut::NoTopic);
        let (missing, again): (Vec<_>, Vec<_>) =
            missing.map(|(put, one)| (put, one.clone())).unzip();
        let answers = self.store.later().put(&at, level, &again).await?;
        for (put, answer) in missing.into_iter().zip(answers) {
            *put = answer;
        }
        Ok(puts)
    }

    fn scheduled(&self, topic: &Topic, id: ScheduleId, put: LaterPut) -> Result<Scheduled, Error> {
        match put {
            LaterPut::Scheduled {
                due,
                due_in,
                replaced,
            } => {
                self.due_in(topic, due_in);
                let kept = false;
                Ok(Scheduled {
                    id,
                    due,
                    replaced,
                    kept,
                })
            }
            LaterPut::Kept { due, due_in } => {
                self.due_in(topic, due_in);
                Ok(Scheduled {
                    id,
                    due,
                    replaced: false,
                    kept: true,
                })
            }
            LaterPut::Full {
                partition,
                partitions,
                most,
            } => Err(full_of(topic, partition, partitions, most)),
            LaterPut::NoTopic => {
                let rule = "something removes the topic's settings; nothing was scheduled";
                Err(Error::new(ErrorKind::NotFound, OPERATION, rule).on(topic.as_str()))
            }
        }
    }

    pub(super) async fn cancel(&self, topic: &Topic, id: &ScheduleId) -> Result<bool, Error> {
        self.check_open("bus").map_err(|e| e.on(topic.as_str()))?;
        self.later.know_partitions(topic).await?;
        let at = Partition::of(topic);
        let ids = std::slice::from_ref(id);
        let done = self.store.later().cancel(&at, ids).await?;
        Ok(done.first().is_some_and(|count| *count > 0))
    }

    pub(super) async fn reschedule(
        &self,
        at: &Partition,
        id: &ScheduleId,
        due: When,
    ) -> Result<Vec<Timestamp>, Error> {
        self.check_open("bus")
            .and_then(|()| due.check("reschedule"))
            .map_err(|e| e.on(format!("{at}/{id}")))?;
        self.later.know_partitions(at.topic()).await?;
        let done = self.store.later().reschedule(at, id, due).await?;
        let tell = |(due, due_in)| {
            self.due_in(at.topic(), due_in);
            due
        };
        Ok(done.into_iter().map(tell).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::api::PublishHooks;
    use crate::domain::{BoxFuture, Codec};
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{LaterAnswer, LaterOp, MAX_BATCH, Store as _};
    use crate::wire::Limits;

    /// Refuses one of the calls that put messages.
    #[derive(Debug)]
    struct Refusing {
        refused: usize,
        calls: AtomicUsize,
    }

    impl Decorator for Refusing {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut to: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                if matches!(op, Op::Later(LaterOp::Put { .. }))
                    && self.calls.fetch_add(1, Ordering::Relaxed) == self.refused
                {
                    return Err(Error::new(ErrorKind::Refused, OPERATION, "memory is full"));
                }
                to.run(op).await
            })
        }
    }

    #[tokio::test]
    async fn a_refused_batch_fails_neither_those_before_it_nor_their_watch() {
        let topic = Topic::new("orders").unwrap();
        let refusing = Refusing {
            refused: 1,
            calls: AtomicUsize::new(0),
        };
        let store = MemoryStore::new().store(None);
        let settings = TopicSettings::default();
        store.topics().ensure_topic(&topic, settings).await.unwrap();
        let store = Arc::new(Decorated::new(Arc::new(refusing), store));
        let (limits, hooks) = (Limits::default(), PublishHooks::default());
        let bus = Publishing::new(Arc::clone(&store) as _, Codec::Json, limits, None, hooks);
        let messages: Vec<_> = (0..3 * MAX_BATCH as u64 - 7)
            .map(|n| Envelope::new("n", &n).unwrap())
            .collect();
        let soon = When::After(Duration::from_millis(1));
        let options = ScheduleOptions::new();
        let results = bus.schedule(&topic, &messages, soon, &options).await;
        assert_eq!(results.len(), messages.len());
        for (number, result) in results.iter().enumerate() {
            let kind = result.as_ref().err().map(Error::kind);
            let expected = match number / MAX_BATCH {
                0 => None,
                1 => Some(ErrorKind::Refused),
                _ => Some(ErrorKind::Unavailable),
            };
            assert_eq!(kind, expected, "{number}: {result:?}");
        }
        // The container brings what it has scheduled without another call.
        let at = Partition::of(&topic);
        let looking = async {
            loop {
                let kept = store.later().list(&at, None, 1).await.unwrap();
                if kept.entries.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(30), looking).await;
        came.expect("the due messages are published");
        let entries = store.log().browse(&at, None, 2 * MAX_BATCH).await.unwrap();
        assert_eq!(entries.len(), MAX_BATCH);
    }

    /// Does not know the topic of the last message of the first call.
    #[derive(Debug, Default)]
    struct Forgetful(AtomicUsize);

    impl Decorator for Forgetful {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut to: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                match op {
                    Op::Later(LaterOp::Put {
                        at,
                        level,
                        messages,
                    }) if self.0.fetch_add(1, Ordering::Relaxed) == 0 => {
                        let known = &messages[..messages.len() - 1];
                        let mut puts = to.store.later().put(at, level, known).await?;
                        puts.push(LaterPut::NoTopic);
                        Ok(Answer::Later(LaterAnswer::Put(puts)))
                    }
                    op => to.run(op).await,
                }
            })
        }
    }

    #[tokio::test]
    async fn a_partition_without_its_settings_does_not_repeat_the_messages_of_the_others() {
        let topic = Topic::new("orders").unwrap();
        let store = MemoryStore::new().store(None);
        let settings = TopicSettings::default();
        store.topics().ensure_topic(&topic, settings).await.unwrap();
        let store = Arc::new(Decorated::new(Arc::<Forgetful>::default(), store));
        let (limits, hooks) = (Limits::default(), PublishHooks::default());
        let bus = Publishing::new(store, Codec::Json, limits, None, hooks);
        let messages = [1, 2, 3].map(|n| Envelope::new("n", &n).unwrap());
        let later = When::After(Duration::from_secs(3600));
        let options = ScheduleOptions::new();
        let results = bus.schedule(&topic, &messages, later, &options).await;
        let replaced = results.into_iter().map(|one| one.unwrap().replaced);
        assert_eq!(replaced.collect::<Vec<_>>(), [false; 3]);
    }
}
