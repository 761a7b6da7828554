//! Messages for later: publishing at a time, cancelling and rescheduling.

use std::time::Duration;

use crate::api::bus::Bus;
use crate::domain::{
    Envelope, Error, ErrorKind, ScheduleId, ScheduleOptions, Scheduled, Timestamp, Topic, When,
};
use crate::store::Partition;

/// Messages for later.
impl Bus {
    /// Publishes a message at a time. When this returns `Ok`, the store has it, and publishes it when it
    /// is due although this process may have ended. A time in the past is due at once.
    ///
    /// The message waits beside its topic under an id, by default the envelope's. Until it is due it can
    /// be replaced, [rescheduled](Self::reschedule) and [cancelled](Self::cancel) by this id. Groups that
    /// are created before it is due get it too. Messages that are due at the same millisecond are
    /// published in the order of their ids.
    ///
    /// # Errors
    ///
    /// | Kind | What it means | Scheduled? |
    /// |---|---|---|
    /// | [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) | the connection failed after the request was sent; a repeat under the same id, before the message is due, replaces it | maybe |
    /// | [`BacklogFull`](crate::ErrorKind::BacklogFull) | the topic keeps as many messages for later as its backlog limit | no |
    /// | [`TooLarge`](crate::ErrorKind::TooLarge), [`Encode`](crate::ErrorKind::Encode) | the message breaks the rule that the error names | no |
    /// | [`Unavailable`](crate::ErrorKind::Unavailable) | the server could not be reached or is not ready | no |
    /// | [`Refused`](crate::ErrorKind::Refused) | the server refused: missing permission, memory full | no |
    /// | [`Invalid`](crate::ErrorKind::Invalid) | a time before 1970, a delay of more than 100 years, or a [publish hook](crate::middleware::PublishHook) refused the message | no |
    /// | [`Unsupported`](crate::ErrorKind::Unsupported) | the store has no messages for later | no |
    /// | [`Closed`](crate::ErrorKind::Closed) | the container was shut down | no |
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the message may or may not be scheduled.
    pub async fn publish_at(
        &self,
        at: Timestamp,
        topic: &Topic,
        envelope: &Envelope,
    ) -> Result<Scheduled, Error> {
        let options = ScheduleOptions::new();
        self.publish_at_with(at, topic, envelope, options).await
    }

    /// Publishes a message at a time, with options. See [`publish_at`](Self::publish_at).
    ///
    /// # Errors
    ///
    /// As for [`publish_at`](Self::publish_at).
    ///
    /// # Cancel safety
    ///
    /// As for [`publish_at`](Self::publish_at).
    pub async fn publish_at_with(
        &self,
        at: Timestamp,
        topic: &Topic,
        envelope: &Envelope,
        options: ScheduleOptions,
    ) -> Result<Scheduled, Error> {
        self.publish_one_later(topic, envelope, When::At(at), options)
            .await
    }

    /// Publishes a message after a time, by the clock of the store. See
    /// [`publish_at`](Self::publish_at).
    ///
    /// # Errors
    ///
    /// As for [`publish_at`](Self::publish_at).
    ///
    /// # Cancel safety
    ///
    /// As for [`publish_at`](Self::publish_at).
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use redstart::schedules::{ScheduleId, ScheduleOptions};
    /// use redstart::{Container, Envelope, Topic};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// let bus = Container::in_memory().await?.bus();
    /// let reminders = Topic::new("reminders")?;
    /// let day = Duration::from_secs(86_400);
    /// let envelope = Envelope::new("order.unpaid", &7)?;
    /// let named = ScheduleOptions::new().with_id(ScheduleId::new("order-7")?);
    /// bus.publish_after_with(day, &reminders, &envelope, named).await?;
    ///
    /// // The customer has paid.
    /// assert!(bus.cancel(&reminders, &ScheduleId::new("order-7")?).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_after(
        &self,
        delay: Duration,
        topic: &Topic,
        envelope: &Envelope,
    ) -> Result<Scheduled, Error> {
        let options = ScheduleOptions::new();
        self.publish_after_with(delay, topic, envelope, options)
            .await
    }

    /// Publishes a message after a time, with options. See [`publish_after`](Self::publish_after).
    ///
    /// # Errors
    ///
    /// As for [`publish_at`](Self::publish_at).
    ///
    /// # Cancel safety
    ///
    /// As for [`publish_at`](Self::publish_at).
    pub async fn publish_after_with(
        &self,
        delay: Duration,
        topic: &Topic,
        envelope: &Envelope,
        options: ScheduleOptions,
    ) -> Result<Scheduled, Error> {
        self.publish_one_later(topic, envelope, When::After(delay), options)
            .await
    }

    async fn publish_one_later(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        due: When,
        options: ScheduleOptions,
    ) -> Result<Scheduled, Error> {
        let envelopes = std::slice::from_ref(envelope);
        let results = self.port.publish_later(topic, envelopes, due, &options);
        // One message in, one result out.
        results.await.pop().unwrap_or_else(|| {
            let rule = "the bus gave no result for this message";
            Err(Error::new(ErrorKind::OutcomeUnknown, "schedule", rule).on(topic.as_str()))
        })
    }

    /// Schedules messages for the same time, batched. Returns one result for each message, in the same
    /// order, with the errors of [`publish_at`](Self::publish_at). The options of several messages name
    /// no id: each message has that of its envelope.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped any number of messages, from the first on, may be scheduled.
    pub async fn publish_later(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        due: When,
        options: ScheduleOptions,
    ) -> Vec<Result<Scheduled, Error>> {
        self.port
            .publish_later(topic, envelopes, due, &options)
            .await
    }

    /// Cancels a message for later: removes it for good. Returns whether it was scheduled; `false` also
    /// for a message that has been due. In a topic with several partitions it cancels the messages with
    /// this id in [all of them](crate::docs::partitions).
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the message may or may not be cancelled.
    pub async fn cancel(&self, topic: &Topic, id: &ScheduleId) -> Result<bool, Error> {
        self.port.cancel(topic, id).await
    }

    /// Changes when a message for later is due. Returns the new time, or `None` where no message of
    /// this id is scheduled. In a topic with several partitions it changes the messages with this id in
    /// [all of them](crate::docs::partitions), and returns the earliest new time.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a time or delay out of bounds, and the kinds of the
    /// connection.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the message may have the old or the new time.
    pub async fn reschedule(
        &self,
        topic: &Topic,
        id: &ScheduleId,
        due: When,
    ) -> Result<Option<Timestamp>, Error> {
        let at = Partition::of(topic);
        let due = self.reschedule_in(&at, id, due).await?;
        Ok(due.into_iter().min())
    }

    /// Changes when the messages are due that an id names in a topic, or in one of its partitions.
    pub(crate) async fn reschedule_in(
        &self,
        at: &Partition,
        id: &ScheduleId,
        due: When,
    ) -> Result<Vec<Timestamp>, Error> {
        self.port.reschedule(at, id, due).await
    }
}
