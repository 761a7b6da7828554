//! Scheduling messages: validate → hooks → encode → put beside the topic's log.

use std::time::Duration;

use metrics::counter;

use super::backlog::nothing_appended;
use super::draft::begin;
use super::publish::Publishing;
use crate::domain::{
    Envelope, Error, ErrorKind, ScheduleId, ScheduleOptions, Scheduled, Timestamp, Topic,
    TopicSettings, When,
};
use crate::store::{LaterPut, NewLater, Partition};

const OPERATION: &str = "schedule";

/// The error of a topic that keeps as many messages for later as it may.
pub(super) fn full_of(topic: &str) -> Error {
    let rule = "the topic keeps as many messages for later as its backlog limit; \
                nothing was scheduled";
    Error::new(ErrorKind::BacklogFull, OPERATION, rule).on(topic)
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
            Ok(()) => self.schedule_checked(topic, envelopes, due, options).await,
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
    ) -> Result<(), Error> {
        self.check_open("bus")?;
        due.check(OPERATION)?;
        if count > 1 && options.has_id() {
            let rule = "an id names one message; several messages have the ids of their envelopes";
            return Err(Error::new(ErrorKind::Invalid, OPERATION, rule));
        }
        Ok(())
    }

    async fn schedule_checked(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        due: When,
        options: &ScheduleOptions,
    ) -> Vec<Result<Scheduled, Error>> {
        let traced = self.with_trace(envelopes);
        let encoded = traced
            .iter()
            .map(|envelope| self.encode_later(topic, envelope, due, options));
        let encoded: Vec<Result<NewLater, Error>> = encoded.collect();
        let messages: Vec<NewLater> = encoded.iter().flatten().cloned().collect();
        let mut puts = self.put(topic, &messages).await.map(Vec::into_iter);
        let done = encoded.into_iter().map(|encoded| {
            let message = encoded?;
            let puts = puts.as_mut().map_err(|error| error.clone())?;
            let missing = || {
                let rule = "the store gave no result for this message";
                Error::new(ErrorKind::OutcomeUnknown, OPERATION, rule).on(topic.as_str())
            };
            let put = puts.next().ok_or_else(missing)?;
            self.scheduled(topic, message.id, put)
        });
        done.collect()
    }

    /// A hook may change the envelope; the id is that of the envelope which the caller passed.
    pub(super) fn encode_later(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        due: When,
        options: &ScheduleOptions,
    ) -> Result<NewLater, Error> {
        let encode = |envelope: &Envelope| {
            let (name, value) = self.encoder.encode(envelope)?;
            Ok::<_, Error>((name, value, envelope.slot()))
        };
        let (name, value, slot) = if self.hooks.is_empty() {
            encode(&begin(envelope))?
        } else {
            let mut envelope = envelope.clone();
            envelope.reset_attempts();
            self.hooks.before(topic, &mut envelope)?;
            encode(&envelope)?
        };
        Ok(NewLater {
            id: options.id_of(envelope),
            due,
            keeps: options.keeps(),
            name,
            value: value.into(),
            slot,
        })
    }

    /// Makes this container look at a topic when a message of it is due.
    pub(super) fn due_in(&self, topic: &Topic, delay: Duration) {
        if !self.dues().look(topic, delay) {
            self.later.watch.due_in(topic, delay);
        }
    }

    /// Puts messages beside the log. Creates the topic if it is missing.
    async fn put(&self, topic: &Topic, messages: &[NewLater]) -> Result<Vec<LaterPut>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let at = Partition::of(topic);
        let puts = self.store.later().put(&at, messages).await?;
        if !puts.contains(&LaterPut::NoTopic) {
            return Ok(puts);
        }
        let settings = TopicSettings::default();
        let ensured = self.store.topics().ensure_topic(topic, settings).await;
        ensured.map_err(|error| nothing_appended(error, topic))?;
        // A message that the first call has put is replaced by itself.
        self.store.later().put(&at, messages).await
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
            LaterPut::Full => Err(full_of(topic.as_str())),
            LaterPut::NoTopic => {
                let rule = "something removes the topic's settings; nothing was scheduled";
                Err(Error::new(ErrorKind::NotFound, OPERATION, rule).on(topic.as_str()))
            }
        }
    }

    pub(super) async fn cancel(&self, topic: &Topic, id: &ScheduleId) -> Result<bool, Error> {
        self.check_open("bus").map_err(|e| e.on(topic.as_str()))?;
        let at = Partition::of(topic);
        let ids = std::slice::from_ref(id);
        let done = self.store.later().cancel(&at, ids).await?;
        Ok(done.first().copied().unwrap_or(false))
    }

    pub(super) async fn reschedule(
        &self,
        topic: &Topic,
        id: &ScheduleId,
        due: When,
    ) -> Result<Option<Timestamp>, Error> {
        self.check_open("bus")
            .and_then(|()| due.check("reschedule"))
            .map_err(|e| e.on(format!("{topic}/{id}")))?;
        let at = Partition::of(topic);
        let done = self.store.later().reschedule(&at, id, due).await?;
        Ok(done.map(|(due, due_in)| {
            self.due_in(topic, due_in);
            due
        }))
    }
}
