//! The position of an entry in its topic.

use std::fmt;
use std::str::FromStr;

use super::as_text::as_text;
use super::error::{Error, ErrorKind};
use super::timestamp::Timestamp;

/// The id of an entry: the server's time in milliseconds, a sequence number, and the entry's
/// partition.
///
/// Written as `1762957200123-0` in partition 0, which is the only one of most topics, and as
/// `3/1762957200123-0` in partition 3. Ids order the entries of one partition. Between partitions they
/// order by the clocks of the servers.
///
/// An id does not identify a message: after a failover that lost writes a server can assign the same
/// id again. Use the envelope's `id` for identity.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// Milliseconds since 1970-01-01T00:00:00Z, by the server's clock.
    pub millis: u64,
    /// The number within the millisecond.
    pub sequence: u64,
    // Last, so that ids of several partitions are in the order of time.
    partition: u16,
}

impl EntryId {
    /// The id of an entry in partition 0.
    #[must_use]
    pub const fn new(millis: u64, sequence: u64) -> Self {
        Self {
            millis,
            sequence,
            partition: 0,
        }
    }

    /// The same id in another partition.
    #[must_use]
    pub const fn in_partition(mut self, partition: u16) -> Self {
        self.partition = partition;
        self
    }

    /// The number of the entry's partition.
    #[must_use]
    pub const fn partition(self) -> u16 {
        self.partition
    }

    /// When the entry was appended, by the server's clock; `None` after the year 9999.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        i64::try_from(self.millis)
            .ok()
            .and_then(|millis| Timestamp::from_millis(millis).ok())
    }

    /// The smallest id of a time: all entries of its millisecond and later ones are not below it.
    #[must_use]
    pub fn first_of(time: Timestamp) -> Self {
        Self {
            millis: u64::try_from(time.as_millis()).unwrap_or(0),
            sequence: 0,
            partition: 0,
        }
    }

    /// The largest id of the partition below this one; `None` for the smallest.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        if let Some(sequence) = self.sequence.checked_sub(1) {
            return Some(Self { sequence, ..self });
        }
        Some(Self {
            millis: self.millis.checked_sub(1)?,
            sequence: u64::MAX,
            ..self
        })
    }

    /// The largest id of all partitions below this one; `None` for the smallest. An entry of any partition
    /// is at or after this id where it is after the one before in the topic.
    #[must_use]
    pub fn before_in_topic(self) -> Option<Self> {
        if let Some(partition) = self.partition.checked_sub(1) {
            return Some(self.in_partition(partition));
        }
        Some(self.before()?.in_partition(u16::MAX))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partition > 0 {
            write!(f, "{}/", self.partition)?;
        }
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (partition, entry) = text.split_once('/').unwrap_or(("0", text));
        let parsed = entry.split_once('-').and_then(|(millis, sequence)| {
            let id = Self::new(millis.parse().ok()?, sequence.parse().ok()?);
            Some(id.in_partition(partition.parse().ok()?))
        });
        parsed.ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::new(
                ErrorKind::Invalid,
                "entry id",
                "must be <milliseconds>-<sequence>, or <partition>/<milliseconds>-<sequence>",
            )
            .on(shown)
        })
    }
}

impl TryFrom<&str> for EntryId {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

as_text!(EntryId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips_and_orders_as_the_server_does(
            a in any::<(u64, u64, u16)>(), b in any::<(u64, u64, u16)>()
        ) {
            let id = |(millis, sequence, partition)| {
                EntryId::new(millis, sequence).in_partition(partition)
            };
            prop_assert_eq!(id(a).to_string().parse::<EntryId>().unwrap(), id(a));
            prop_assert_eq!(id(a).cmp(&id(b)), a.cmp(&b));
        }

        #[test]
        fn no_id_of_the_topic_lies_between_an_id_and_the_one_before(
            a in (0..3_u64, 0..2_u64, 0..3_u16), b in (0..3_u64, 0..2_u64, 0..3_u16)
        ) {
            let id = |(millis, sequence, partition)| {
                EntryId::new(millis, sequence).in_partition(partition)
            };
            let (id, other) = (id(a), id(b));
            let is_after = id.before_in_topic().is_none_or(|before| other > before);
            prop_assert_eq!(is_after, other >= id);
        }
    }

    #[test]
    fn an_id_names_its_partition_unless_that_is_the_first() {
        let id = EntryId::new(7, 1);
        assert_eq!(id.to_string(), "7-1");
        assert_eq!(id.in_partition(3).to_string(), "3/7-1");
        assert_eq!(
            id.in_partition(3).before(),
            Some(EntryId::new(7, 0).in_partition(3))
        );
        assert_eq!(
            id.in_partition(3).before_in_topic(),
            Some(id.in_partition(2))
        );
        assert_eq!(EntryId::default().before_in_topic(), None);
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "1",
            "-",
            "1-",
            "a-1",
            "1-2-3",
            "99999999999999999999-0",
            "/1-0",
            "x/1-0",
            "70000/1-0",
            "1/2/1-0",
        ] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad:?}");
        }
    }
}
