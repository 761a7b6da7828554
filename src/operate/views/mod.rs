//! The JSON of the command-line tool and of other front ends: one dialect, in camelCase.
//!
//! Reports, previews and status values of the library serialise by themselves. The views here
//! join several of them in one object. Not covered by semver.

mod entry;
mod message;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::{
    ConsumerName, DeadLetterSummary, EntryId, Envelope, Group, ScheduleId, Timestamp, Topic,
};
use crate::operate::gauges::GroupAges;
use crate::operate::in_flight::ConsumerInFlight;
use crate::operate::owned::OwnedPartition;
use crate::operate::retries::ScheduledRetry;
use crate::operate::schedules::ScheduledMessage;
use crate::store::{DeliveryId, GroupReset, GroupStatus, ResetTo, TopicStatus};
use crate::wire::value::{decode, once_state};

use self::message::MessageView;

pub use self::entry::{EntryLine, ListedEntry};
pub use self::message::envelope_json;
#[cfg(feature = "console")]
pub(crate) use self::value::form;
pub use self::value::{LISTED_BYTES, ListedValue};

/// A key of [`once`](crate::kv::once).
#[derive(Clone, Debug, Serialize)]
pub struct OnceState {
    /// `claimed`, `begun` or `done`.
    pub once: &'static str,
    /// The result of a completed run, if one is stored.
    pub result: Option<Box<RawValue>>,
}

impl OnceState {
    /// The state in stored bytes; `None` for those of other values.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (once, result) = once_state(bytes)?;
        let result = result.and_then(|result| decode(&result).ok());
        Some(Self { once, result })
    }
}

/// A stored value of the key-value store as JSON; `None` for other bytes.
pub(crate) fn value_json(bytes: &bytes::Bytes) -> Option<Box<RawValue>> {
    decode(bytes).ok()
}

/// A dead letter in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedDeadLetter<'a> {
    /// The dead letter's id.
    pub id: EntryId,
    /// When the message died, by the store's clock.
    pub died: Option<Timestamp>,
    /// Everything else.
    #[serde(flatten)]
    pub summary: &'a DeadLetterSummary,
}

impl<'a> ListedDeadLetter<'a> {
    /// The view of a dead letter in a page.
    #[must_use]
    pub fn new(id: EntryId, summary: &'a DeadLetterSummary) -> Self {
        Self {
            id,
            died: id.time(),
            summary,
        }
    }
}

/// A value with the topic that it belongs to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfTopic<'a, T> {
    /// The topic.
    pub topic: &'a Topic,
    /// The value.
    #[serde(flatten)]
    pub value: &'a T,
}

/// A topic in a list: its status, and the primaries of its partitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedTopic {
    /// The topic's status.
    #[serde(flatten)]
    pub status: TopicStatus,
    /// The address of the primary of each partition in a cluster, `None` where no node serves its slot; empty
    /// outside a cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primaries: Vec<Option<String>>,
}

impl ListedTopic {
    /// The primaries in words, each with how many of several partitions it holds; empty outside a
    /// cluster.
    #[must_use]
    pub fn primaries_in_words(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for primary in &self.primaries {
            let primary = primary.as_deref().unwrap_or("no primary");
            *counts.entry(primary).or_default() += 1;
        }
        let words = counts.into_iter().map(|(primary, count)| {
            if self.primaries.len() == 1 {
                return primary.to_owned();
            }
            format!("{count} on {primary}")
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// A group in a list: its status, and how old its oldest messages are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedGroup<'a> {
    topic: &'a Topic,
    #[serde(flatten)]
    status: &'a GroupStatus,
    oldest_undelivered_ms: Option<u64>,
    oldest_in_flight_ms: Option<u64>,
    next_retry_ms: Option<i64>,
}

impl<'a> ListedGroup<'a> {
    /// The view of a group. `ages` has no entry for a group that was created meanwhile.
    #[must_use]
    pub fn new(topic: &'a Topic, status: &'a GroupStatus, ages: &[GroupAges]) -> Self {
        let ages = ages.iter().find(|ages| ages.group == status.group);
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self {
            topic,
            status,
            oldest_undelivered_ms: ages.and_then(|ages| ages.oldest_undelivered.map(millis)),
            oldest_in_flight_ms: ages.and_then(|ages| ages.oldest_in_flight.map(millis)),
            next_retry_ms: ages.and_then(|ages| ages.next_retry),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.topic
    }

    /// The group's status.
    #[must_use]
    pub fn status(&self) -> &GroupStatus {
        self.status
    }

    /// The age of the group's oldest message that is not delivered yet.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.oldest_undelivered_ms.map(Duration::from_millis)
    }

    /// How long the group's oldest delivery has been in flight.
    #[must_use]
    pub fn busy(&self) -> Option<Duration> {
        self.oldest_in_flight_ms.map(Duration::from_millis)
    }

    /// Milliseconds until the next scheduled retry is due, negative once it is overdue.
    #[must_use]
    pub fn next_retry_ms(&self) -> Option<i64> {
        self.next_retry_ms
    }
}

/// A group on one partition of its topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupOnPartition<'a> {
    topic: &'a Topic,
    /// The number of the partition, from 0.
    pub partition: u16,
    /// The group's status there.
    #[serde(flatten)]
    pub status: &'a GroupStatus,
    /// The address of the primary that holds the partition in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<&'a str>,
    /// The member that owns it; `None` while nobody does, and for a shared group.
    pub owner: Option<&'a ConsumerName>,
    /// The owner's token.
    pub token: Option<u64>,
    /// How many failed messages hold back their keys; `None` for a shared group.
    pub held_back: Option<u64>,
}

impl<'a> GroupOnPartition<'a> {
    /// The view of a group's status on a partition, of the partition's primary in a cluster, and of the
    /// group's owner there if it is owned.
    #[must_use]
    pub fn new(
        topic: &'a Topic,
        partition: u16,
        status: &'a GroupStatus,
        primary: Option<&'a str>,
        owned: Option<&'a OwnedPartition>,
    ) -> Self {
        Self {
            topic,
            partition,
            status,
            primary,
            owner: owned.and_then(|one| one.owner.as_ref()),
            token: owned.and_then(|one| one.token),
            held_back: owned.map(|one| one.held_back),
        }
    }
}

/// A group with its consumers, and with its partitions if it is owned.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownGroup<'a> {
    #[serde(flatten)]
    group: ListedGroup<'a>,
    consumers_of: &'a [ConsumerInFlight],
    #[serde(skip_serializing_if = "<[OwnedPartition]>::is_empty")]
    partitions: &'a [OwnedPartition],
}

impl<'a> ShownGroup<'a> {
    /// The view of a group, of the consumers that it knows, and of the partitions of an owned group.
    #[must_use]
    pub fn new(
        group: ListedGroup<'a>,
        consumers: &'a [ConsumerInFlight],
        partitions: &'a [OwnedPartition],
    ) -> Self {
        Self {
            group,
            consumers_of: consumers,
            partitions,
        }
    }
}

/// The result of a reset, with the group that it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetResult<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The group.
    pub group: &'a Group,
    /// Where the operator sent it.
    pub to: ResetTo,
    /// What the store did.
    #[serde(flatten)]
    pub reset: GroupReset,
}

/// A scheduled retry in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedRetry {
    id: DeliveryId,
    due: Timestamp,
    due_in_ms: u64,
    attempts: Option<u32>,
    error: Option<String>,
    origin: EntryId,
    first_failure: Option<Timestamp>,
    redriven: u32,
    #[serde(flatten)]
    message: MessageView,
}

impl From<&ScheduledRetry> for ListedRetry {
    fn from(retry: &ScheduledRetry) -> Self {
        let envelope = retry.envelope.as_ref().ok();
        Self {
            id: retry.id,
            due: retry.due,
            due_in_ms: u64::try_from(retry.due_in.as_millis()).unwrap_or(u64::MAX),
            attempts: envelope.map(Envelope::failed_attempts),
            error: envelope.and_then(|one| one.last_error().map(str::to_owned)),
            origin: retry.history.origin,
            first_failure: retry.history.first_failure,
            redriven: retry.history.redriven,
            message: MessageView::new(retry.envelope.as_ref(), &retry.fields),
        }
    }
}

/// As [`ListedRetry`].
impl Serialize for ScheduledRetry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ListedRetry::from(self).serialize(serializer)
    }
}

/// A message for later in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedSchedule {
    id: ScheduleId,
    partition: u16,
    due: Timestamp,
    due_in_ms: u64,
    #[serde(flatten)]
    message: MessageView,
}

impl From<&ScheduledMessage> for ListedSchedule {
    fn from(message: &ScheduledMessage) -> Self {
        Self {
            id: message.id.clone(),
            partition: message.partition,
            due: message.due,
            due_in_ms: u64::try_from(message.due_in.as_millis()).unwrap_or(u64::MAX),
            message: MessageView::new(message.envelope.as_ref(), &message.fields),
        }
    }
}

/// As [`ListedSchedule`].
impl Serialize for ScheduledMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ListedSchedule::from(self).serialize(serializer)
    }
}

/// JSON on many lines. Keeps every digit, every escape and equal keys.
pub fn pretty_json(json: &RawValue) -> String {
    crate::domain::pretty(json.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;
    use serde_json::json;

    #[test]
    fn a_listed_dead_letter_uses_the_names_of_the_export() {
        let summary = DeadLetterSummary {
            reason: Reason::Exhausted,
            fingerprint: "f".into(),
            message_type: "order.placed".into(),
            tenant: Some("acme".into()),
            correlation: Some("c".into()),
            message_id: None,
            error: "e".into(),
            attempts: 3,
            redriven: 0,
            redriven_by: None,
            imported_from: None,
        };
        let id = "1-2".parse().unwrap();
        assert_eq!(
            serde_json::to_value(ListedDeadLetter::new(id, &summary)).unwrap(),
            json!({
                "id": "1-2", "died": "1970-01-01T00:00:00.001Z", "reason": "exhausted",
                "fingerprint": "f", "type": "order.placed", "tenantId": "acme", "corrId": "c",
                "messageId": null, "error": "e", "attempts": 3, "redriven": 0,
                "redrivenBy": null, "importedFrom": null,
            })
        );
    }
}
