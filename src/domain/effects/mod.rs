//! Effects: a handler's messages and changes of state, which go with its acknowledgement.

mod look;
mod operation;
mod read;

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::duration::ttl_millis;
use super::envelope::Envelope;
use super::error::{Error, ErrorKind};
use super::later::{ScheduleId, ScheduleOptions, When};
use super::names::{Topic, check_key};
use super::payload::Portable;
use super::publish_options::PublishOptions;
use super::timestamp::Timestamp;

pub(crate) use operation::{Operation, Write};
pub use read::Read;

const OPERATION: &str = "effects";

/// Messages and changes of state that a handler returns. The store writes all of them together with
/// the acknowledgement of the message, in one step, or none of them.
///
/// The bus writes nothing before the handler returns. A handler that returns an error discards its
/// effects. If the delivery's lease was lost, the store writes nothing: the consumer that has the
/// message now decides about it.
///
/// Effects cover what the store holds: topics and the key-value store of the container's namespace.
/// A request to another system is not an effect, and [`Bus::publish`](crate::Bus::publish) inside
/// the handler is not one either: both happen again when the message is delivered again.
///
/// The first operation that breaks a rule makes the whole value invalid; see
/// [`check`](Self::check). A handler that returns invalid effects has failed.
///
/// # Limits
///
/// | | |
/// |---|---|
/// | operations | 256 |
/// | payloads, keys and values together | 1 MiB |
/// | writes to one key | 1 |
/// | operations on one message for later | 1 |
///
/// # Example
///
/// ```
/// use redstart::{Container, Effects, Envelope, Error, Topic};
///
/// const INVOICES: Topic = Topic::from_static("invoices");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let container = Container::in_memory().await?;
/// let stock = container.kv().read::<i64>("stock:7").await?;
///
/// let mut effects = Effects::new();
/// effects
///     .replace(&stock, &(stock.value_or(10) - 1))
///     .incr("revenue", 1250)
///     .publish(&INVOICES, Envelope::new("invoice.due", &7)?);
/// container.commit(effects).await?;
/// assert_eq!(container.kv().get::<i64>("stock:7").await?, Some(9));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "effects do nothing until a handler returns them or a container commits them"]
pub struct Effects {
    operations: Vec<Operation>,
    bytes: usize,
    /// The first rule that was broken.
    error: Option<Error>,
}

impl Effects {
    /// The most operations.
    pub const MAX_OPERATIONS: usize = 256;
    /// The most bytes of payloads, keys and values together.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// No effects: the message is acknowledged, and nothing else happens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes a message, with the defaults of the container.
    pub fn publish(&mut self, topic: &Topic, envelope: Envelope) -> &mut Self {
        self.publish_with(topic, envelope, PublishOptions::new())
    }

    /// Publishes a message with options. A message that deduplication recognises as a repeat adds
    /// nothing; the other effects are written all the same.
    pub fn publish_with(
        &mut self,
        topic: &Topic,
        envelope: Envelope,
        options: PublishOptions,
    ) -> &mut Self {
        if let Err(error) = options.window(None) {
            return self.refuse(error.on(topic.as_str()));
        }
        self.add(Operation::Publish {
            topic: topic.clone(),
            envelope: Box::new(envelope),
            options,
        })
    }

    /// Publishes a message at a time. A time in the past is due at once. See
    /// [`Bus::publish_at`](crate::Bus::publish_at).
    pub fn publish_at(&mut self, at: Timestamp, topic: &Topic, envelope: Envelope) -> &mut Self {
        self.publish_at_with(at, topic, envelope, ScheduleOptions::new())
    }

    /// Publishes a message at a time, with options.
    pub fn publish_at_with(
        &mut self,
        at: Timestamp,
        topic: &Topic,
        envelope: Envelope,
        options: ScheduleOptions,
    ) -> &mut Self {
        self.publish_later(When::At(at), topic, envelope, options)
    }

    /// Publishes a message after a time, by the clock of the store. See
    /// [`Bus::publish_after`](crate::Bus::publish_after).
    pub fn publish_after(
        &mut self,
        delay: Duration,
        topic: &Topic,
        envelope: Envelope,
    ) -> &mut Self {
        self.publish_after_with(delay, topic, envelope, ScheduleOptions::new())
    }

    /// Publishes a message after a time, with options.
    pub fn publish_after_with(
        &mut self,
        delay: Duration,
        topic: &Topic,
        envelope: Envelope,
        options: ScheduleOptions,
    ) -> &mut Self {
        self.publish_later(When::After(delay), topic, envelope, options)
    }

    fn publish_later(
        &mut self,
        due: When,
        topic: &Topic,
        envelope: Envelope,
        options: ScheduleOptions,
    ) -> &mut Self {
        if let Err(error) = due.check(OPERATION) {
            return self.refuse(error.on(topic.as_str()));
        }
        self.add(Operation::PublishLater {
            topic: topic.clone(),
            envelope: Box::new(envelope),
            due,
            options,
        })
    }

    /// Cancels a message for later, if it is scheduled. Effects name an id of a topic once: they do not
    /// schedule and cancel it.
    pub fn cancel(&mut self, topic: &Topic, id: &ScheduleId) -> &mut Self {
        self.add(Operation::Cancel {
            topic: topic.clone(),
            id: id.clone(),
        })
    }

    /// Stores a value for ever.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> &mut Self {
        self.store(key, value, None, |value| Write::Set { value, ttl: None })
    }

    /// Stores a value for a time: 1 millisecond to 146 million years.
    pub fn set_with_ttl<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        ttl: Duration,
    ) -> &mut Self {
        let ttl = Some(ttl);
        self.store(key, value, ttl, |value| Write::Set { value, ttl })
    }

    /// Stores a value under a key that must be absent, for ever or for a time. If the key exists,
    /// the effects conflict: see [`replace`](Self::replace).
    pub fn insert<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> &mut Self {
        self.store(key, value, ttl, |value| Write::Insert { value, ttl })
    }

    /// Removes a key. Removing an absent key succeeds.
    pub fn delete(&mut self, key: &str) -> &mut Self {
        self.write(key, Write::Delete)
    }

    /// Adds to an integer, whatever its value is, and keeps its time to live. An absent key counts
    /// as 0. The attempt fails if the key holds no integer, or if the sum does not fit into an
    /// `i64`.
    pub fn incr(&mut self, key: &str, by: i64) -> &mut Self {
        let within = None;
        self.write(key, Write::Increment { by, within })
    }

    /// Adds to an integer as [`incr`](Self::incr) does, if the sum lies within a range. Otherwise
    /// the attempt fails.
    pub fn incr_within(&mut self, key: &str, by: i64, range: RangeInclusive<i64>) -> &mut Self {
        if range.is_empty() {
            return self.refuse(invalid("the range of a sum may not be empty").on(key));
        }
        let within = Some((*range.start(), *range.end()));
        self.write(key, Write::Increment { by, within })
    }

    /// Replaces a value that was read, for ever, if the key still holds the same bytes. If it does
    /// not, the effects conflict: nothing is written, and the handler runs again at once, with the
    /// same attempt.
    ///
    /// A key that many messages change at the same time conflicts often. [`incr`](Self::incr) and
    /// [`incr_within`](Self::incr_within) never do.
    pub fn replace<T, V: Serialize + ?Sized>(&mut self, read: &Read<T>, value: &V) -> &mut Self {
        let (ttl, seen) = (None, read.seen());
        self.store(read.key(), value, ttl, |value| Write::Replace {
            seen,
            value,
            ttl,
        })
    }

    /// Replaces a value as [`replace`](Self::replace) does, for a time.
    pub fn replace_with_ttl<T, V: Serialize + ?Sized>(
        &mut self,
        read: &Read<T>,
        value: &V,
        ttl: Duration,
    ) -> &mut Self {
        let (ttl, seen) = (Some(ttl), read.seen());
        self.store(read.key(), value, ttl, |value| Write::Replace {
            seen,
            value,
            ttl,
        })
    }

    /// Demands that a key still holds the bytes that were read, and does not write it. If it does
    /// not, the effects conflict: see [`replace`](Self::replace).
    pub fn unchanged<T>(&mut self, read: &Read<T>) -> &mut Self {
        if let Err(error) = check_key(OPERATION, read.key()) {
            return self.refuse(error);
        }
        self.add(Operation::Unchanged {
            key: read.key().to_owned(),
            seen: read.seen(),
        })
    }

    /// Lets the effects happen once for a key. If the key exists, the message is acknowledged and
    /// nothing else is written; otherwise the key is created for `ttl`, together with the effects.
    ///
    /// [`kv::once`](crate::kv::once) recognises the same key as done.
    pub fn once(&mut self, key: &str, ttl: Duration) -> &mut Self {
        let checked = check_key(OPERATION, key)
            .and_then(|()| ttl_millis(OPERATION, Some(ttl)).map_err(|e| e.on(key)));
        if let Err(error) = checked {
            return self.refuse(error);
        }
        let key = key.to_owned();
        self.add(Operation::Once { key, ttl })
    }

    /// Checks that every operation keeps to the rules.
    ///
    /// # Errors
    ///
    /// The first broken rule: [`ErrorKind::Invalid`] for a bad key, time to live or range, for a
    /// second write to a key or a message for later, and for effects beyond the limits; [`ErrorKind::Encode`] for a value
    /// that cannot be encoded.
    pub fn check(&self) -> Result<(), Error> {
        match &self.error {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn store<T: Serialize + ?Sized>(
        &mut self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
        write: impl FnOnce(Portable) -> Write,
    ) -> &mut Self {
        if let Err(error) = ttl_millis(OPERATION, ttl) {
            return self.refuse(error.on(key));
        }
        match Portable::with_wide_integers(value) {
            Ok(value) => self.write(key, write(value)),
            Err(unfit) => {
                let rule = "the value cannot be encoded";
                let error = Error::new(ErrorKind::Encode, OPERATION, rule);
                self.refuse(error.on(key).because(unfit))
            }
        }
    }

    fn write(&mut self, key: &str, write: Write) -> &mut Self {
        if let Err(error) = check_key(OPERATION, key) {
            return self.refuse(error);
        }
        let key = key.to_owned();
        self.add(Operation::Write { key, write })
    }

    fn add(&mut self, operation: Operation) -> &mut Self {
        // Effects that break a rule are never written: more of them would only take memory.
        if self.error.is_some() {
            return self;
        }
        let key = operation.written_key();
        let written = |key| {
            let mut others = self.operations.iter();
            others.any(|other| other.written_key() == Some(key))
        };
        if key.is_some_and(written) {
            let error = invalid("effects write a key once").on(operation.subject());
            return self.refuse(error);
        }
        let scheduled = operation.scheduled_id();
        let is_named = |other: &Operation| other.scheduled_id() == scheduled;
        if scheduled.is_some() && self.operations.iter().any(is_named) {
            let error = invalid("effects schedule or cancel an id once").on(operation.subject());
            return self.refuse(error);
        }
        self.bytes += operation.size();
        self.operations.push(operation);
        if self.operations.len() > Self::MAX_OPERATIONS {
            let rule = format!("effects have at most {} operations", Self::MAX_OPERATIONS);
            return self.refuse(invalid(rule));
        }
        if self.bytes > Self::MAX_BYTES {
            let rule = format!("effects have at most {} bytes", Self::MAX_BYTES);
            return self.refuse(invalid(rule));
        }
        self
    }

    pub(crate) fn refuse(&mut self, error: Error) -> &mut Self {
        self.error.get_or_insert(error);
        self
    }
}

/// Equal effects have the same operations in the same order, and break the same rule.
impl PartialEq for Effects {
    fn eq(&self, other: &Self) -> bool {
        let rule = |effects: &Self| effects.error.as_ref().map(ToString::to_string);
        self.operations == other.operations && rule(self) == rule(other)
    }
}

fn invalid(rule: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, OPERATION, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn topic() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn broken(build: impl FnOnce(&mut Effects)) -> String {
        let mut effects = Effects::new();
        build(&mut effects);
        effects.check().unwrap_err().to_string()
    }

    #[test]
    fn effects_can_be_read_without_a_server() {
        let mut effects = Effects::new();
        let message = Envelope::new("order.placed", &7).unwrap();
        let read = Read::new("stock", None, None::<i64>);
        effects
            .publish(&topic(), message.clone())
            .set("a", &"text")
            .set_with_ttl("wide", &u128::MAX, SECOND)
            .insert("b", &[1, 2], None)
            .replace(&read, &(read.value_or(10) - 1))
            .incr("c", 5)
            .incr_within("d", -3, 0..=9)
            .delete("e")
            .unchanged(&read)
            .once("f", SECOND);
        effects.check().unwrap();
        let published: Vec<_> = effects.published().collect();
        assert_eq!(published, [(&topic(), &message)]);
        let text: Option<String> = effects.value_of("a").unwrap();
        assert_eq!(text.as_deref(), Some("text"));
        assert_eq!(effects.value_of::<u128>("wide").unwrap(), Some(u128::MAX));
        assert_eq!(effects.value_of::<Vec<u8>>("b").unwrap(), Some(vec![1, 2]));
        assert_eq!(effects.value_of::<i64>("stock").unwrap(), Some(9));
        assert_eq!(effects.value_of::<i64>("e").unwrap(), None);
        assert!(effects.value_of::<u8>("a").is_err());
        assert_eq!(
            ["c", "d", "e"].map(|key| effects.increment_of(key)),
            [Some(5), Some(-3), None]
        );
        assert!(effects.deletes("e") && !effects.deletes("c"));
        assert_eq!(effects, effects.clone());
    }

    #[test]
    fn a_message_for_later_is_named_once() {
        let (orders, day) = (topic(), 86_400 * SECOND);
        let id = ScheduleId::new("7").unwrap();
        let named = || ScheduleOptions::new().with_id(id.clone());
        let envelope = Envelope::new("order.unpaid", &7).unwrap();
        let mut effects = Effects::new();
        effects
            .publish_after_with(day, &orders, envelope.clone(), named())
            .cancel(&Topic::new("bills").unwrap(), &id);
        effects.check().unwrap();
        let scheduled: Vec<_> = effects.scheduled().collect();
        assert_eq!(scheduled, [(&orders, &envelope, When::After(day))]);
        assert!(!effects.cancels(&orders, &id));
        assert!(effects.cancels(&Topic::new("bills").unwrap(), &id));
        effects.cancel(&orders, &id);
        assert_eq!(
            effects.check().unwrap_err().to_string(),
            "effects \"orders\": effects schedule or cancel an id once"
        );
        let late = broken(|effects| {
            effects.publish_after(Duration::MAX, &orders, envelope);
        });
        assert_eq!(late, "effects \"orders\": a delay is at most 100 years");
    }

    #[test]
    fn a_key_is_written_once_and_may_have_conditions_too() {
        let read = Read::new("a", None, None::<i64>);
        let mut both = Effects::new();
        both.unchanged(&read).incr("a", 1);
        both.check().unwrap();
        let twice = broken(|effects| {
            effects.incr("a", 1).delete("a");
        });
        assert_eq!(twice, "effects \"a\": effects write a key once");
        let twice = broken(|effects| {
            effects.once("a", SECOND).replace(&read, &1);
        });
        assert!(twice.contains("once"), "{twice}");
    }

    #[test]
    fn a_broken_rule_is_named_and_the_first_one_counts() {
        for (build, rule) in [
            (
                (|e| {
                    e.set("", &1).incr("a", 1);
                }) as fn(&mut Effects),
                "may not be empty or begin with",
            ),
            (
                |e| {
                    e.incr("{shop:orders}:log", 1);
                },
                "`{`",
            ),
            (
                |e| {
                    e.set_with_ttl("a", &1, Duration::ZERO);
                },
                "at least 1 ms",
            ),
            (
                |e| {
                    e.once("a", Duration::MAX);
                },
                "at least 1 ms",
            ),
            (
                |e| {
                    e.incr_within("a", 1, RangeInclusive::new(2, 1));
                },
                "range",
            ),
            (
                |e| {
                    let options = PublishOptions::new().with_deduplication(Duration::ZERO);
                    let envelope = Envelope::new("n", &1).unwrap();
                    e.publish_with(&topic(), envelope, options);
                },
                "deduplication window",
            ),
            (
                |e| {
                    for n in 0..257 {
                        e.incr(&format!("k{n}"), 1);
                    }
                },
                "256 operations",
            ),
            (
                |e| {
                    e.set("a", &"x".repeat(1024 * 1024));
                },
                "1048576 bytes",
            ),
        ] {
            let told = broken(build);
            assert!(told.contains(rule), "{told}");
        }
        let mut beyond = Effects::new();
        for n in 0..1000 {
            beyond.incr(&format!("k{n}"), 1);
        }
        assert_eq!(beyond.operations().len(), Effects::MAX_OPERATIONS + 1);
        let mut at_the_limit = Effects::new();
        for n in 0..256 {
            at_the_limit.incr(&format!("k{n}"), 1);
        }
        at_the_limit.check().unwrap();
    }
}
