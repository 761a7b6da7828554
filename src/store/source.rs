//! Where entries come from, and which members read them.
//!
//! Every call of the port names one partition, one group on a partition, or one member of such a
//! group. The partition decides which server keeps the keys, so a call never spans two of them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::domain::as_text::as_text;
use crate::domain::{ConsumerName, EntryId, Error, ErrorKind, Group, Topic};

/// One partition of a topic, or all of them.
///
/// [`Partition::of`] means the topic as a whole. The runtime's store splits calls for it among the
/// partitions. An adapter knows single partitions only: it takes a whole topic for its partition 0,
/// which is the only one of most topics. The two are therefore equal.
#[derive(Clone, Debug)]
pub struct Partition {
    topic: Topic,
    number: Option<u16>,
}

impl Partition {
    /// The topic as a whole.
    #[must_use]
    pub fn of(topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            number: None,
        }
    }

    /// The partition with a number, from 0.
    #[must_use]
    pub fn numbered(topic: &Topic, number: u16) -> Self {
        Self {
            topic: topic.clone(),
            number: Some(number),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The partition's number within its topic, from 0; 0 for a whole topic.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number.unwrap_or(0)
    }

    /// Whether this means the topic as a whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.number.is_none()
    }

    fn place(&self) -> (&Topic, u16) {
        (&self.topic, self.number())
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Partition {}

impl Ord for Partition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Partition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            0 => write!(f, "{}", self.topic),
            number => write!(f, "{}/{number}", self.topic),
        }
    }
}

/// A group on one partition.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupAt {
    /// The partition.
    pub partition: Partition,
    /// The group.
    pub group: Group,
}

impl GroupAt {
    /// A group on the only partition of a topic.
    #[must_use]
    pub fn of(topic: &Topic, group: &Group) -> Self {
        Self {
            partition: Partition::of(topic),
            group: group.clone(),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.partition.topic()
    }
}

impl fmt::Display for GroupAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.group)
    }
}

/// One named member of a group on one partition.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Member {
    /// The group.
    pub at: GroupAt,
    /// The consumer's name within the group, fresh at every process start.
    pub consumer: ConsumerName,
}

impl Member {
    /// A member of a group on the only partition of a topic.
    #[must_use]
    pub fn of(topic: &Topic, group: &Group, consumer: ConsumerName) -> Self {
        Self {
            at: GroupAt::of(topic, group),
            consumer,
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.at.topic()
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.at.group
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)
    }
}

/// Which of a group's two sequences an entry came from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// The topic's log, which every group reads.
    Log,
    /// The group's own stream of due retries and redriven dead letters.
    Redelivery,
}

/// What identifies a fetched entry within its group.
///
/// Written as `1762957200123-0` where it came from the log, as `redo:1762957200123-0` where it
/// came from the group's redelivery stream, and with its partition before the id where that is not 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct DeliveryId {
    /// The sequence it came from.
    pub lane: Lane,
    /// Its id there.
    pub id: EntryId,
}

impl DeliveryId {
    /// The delivery of an entry of a lane.
    #[must_use]
    pub fn new(lane: Lane, id: EntryId) -> Self {
        Self { lane, id }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lane {
            Lane::Log => write!(f, "{}", self.id),
            Lane::Redelivery => write!(f, "redo:{}", self.id),
        }
    }
}

impl FromStr for DeliveryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (lane, id) = match text.strip_prefix("redo:") {
            Some(id) => (Lane::Redelivery, id),
            None => (Lane::Log, text),
        };
        let id = id.parse().map_err(|_| {
            let rule = "must be [redo:][<partition>/]<milliseconds>-<sequence>";
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::Invalid, "delivery id", rule).on(shown)
        })?;
        Ok(Self { lane, id })
    }
}

impl TryFrom<&str> for DeliveryId {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

as_text!(DeliveryId);

/// One sequence that a reader reads.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Source {
    /// The partition.
    pub partition: Partition,
    /// Its log, or the reading group's redelivery stream on it.
    pub lane: Lane,
}

/// What a reader is opened on: [`Fetched::source`](super::Fetched::source) is an index into
/// `sources`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// The group, which must exist on the partition of every source.
    pub group: Group,
    /// The member's name in the group.
    pub consumer: ConsumerName,
    /// The sources, in the order in which a fetch returns their entries.
    pub sources: Vec<Source>,
    /// Which connection the reader uses, where the store has a choice.
    pub reading: Reading,
}

/// Which connection a subscription reads on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reading {
    /// The first eight subscriptions of a container read on connections of their own, the others on
    /// the shared one. The default.
    #[default]
    Automatic,
    /// On a connection of its own, on which the server holds the read until a message comes. A
    /// message of a busy fleet then wakes one process.
    Own,
    /// On a connection that all such subscriptions of the container share. The server tells on
    /// another one which topics have changed, so a subscription without messages costs nothing. Of
    /// several processes that read one group, one gets most messages while it has room.
    Shared,
}

impl Opening {
    /// The log and the redelivery stream of one member's group.
    #[must_use]
    pub fn of(member: &Member) -> Self {
        let source = |lane| Source {
            partition: member.at.partition.clone(),
            lane,
        };
        Self {
            group: member.at.group.clone(),
            consumer: member.consumer.clone(),
            sources: vec![source(Lane::Log), source(Lane::Redelivery)],
            reading: Reading::default(),
        }
    }

    /// Sets which connection the reader uses.
    #[must_use]
    pub fn with_reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }
}

/// Names every partition once, then the group: `orders/billing`.
impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for source in &self.sources {
            if last != Some(&source.partition) {
                let comma = if last.is_some() { "," } else { "" };
                write!(f, "{comma}{}", source.partition)?;
            }
            last = Some(&source.partition);
        }
        write!(f, "/{}", self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(topic: &str) -> Member {
        let (topic, group) = (Topic::new(topic).unwrap(), Group::new("billing").unwrap());
        Member::of(&topic, &group, ConsumerName::new("c").unwrap())
    }

    #[test]
    fn an_opening_names_each_partition_once() {
        let mut opening = Opening::of(&member("orders"));
        assert_eq!(opening.to_string(), "orders/billing");
        opening
            .sources
            .extend(Opening::of(&member("bills")).sources);
        assert_eq!(opening.to_string(), "orders,bills/billing");
    }

    #[test]
    fn a_delivery_id_is_read_as_it_is_written() {
        for text in ["17-0", "redo:17-3", "3/17-0", "redo:3/17-3"] {
            assert_eq!(text.parse::<DeliveryId>().unwrap().to_string(), text);
        }
        for bad in ["", "redo:", "log:17-0", "17"] {
            let error = bad.parse::<DeliveryId>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
