//! Foreign entries: entries that a program wrote which does not know the wire format.
//!
//! Readers turn such an entry into an envelope. The worker asks them before it dead-letters an entry
//! as undecodable.

mod cloud_events;
mod debezium;
mod plain;
mod text;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

pub use cloud_events::cloud_events;
pub use debezium::debezium;
pub use plain::plain;

use crate::domain::{
    EntryId, Envelope, Error, InheritedTrace, RawPayload, Timestamp, Topic, panic_text_of,
};
use crate::wire::Fields;
use crate::wire::entry::Undecodable;
use crate::wire::envelope::derived_id;

/// An entry that a program wrote which does not know Redstart's wire format: the argument of
/// [`ContainerBuilder::with_foreign`](crate::container::ContainerBuilder::with_foreign).
#[derive(Clone, Copy)]
pub struct ForeignEntry<'a> {
    topic: &'a Topic,
    id: EntryId,
    fields: &'a Fields,
}

/// Shows the names of the fields, never their content, which may be confidential.
impl fmt::Debug for ForeignEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_struct("ForeignEntry")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("fields", &names.collect::<Vec<_>>())
            .finish()
    }
}

impl<'a> ForeignEntry<'a> {
    pub(super) fn new(topic: &'a Topic, id: EntryId, fields: &'a Fields) -> Self {
        Self { topic, id, fields }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &'a Topic {
        self.topic
    }

    /// The id that the entry got in the topic's log. Retries and redrives of the entry keep it.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// The fields, names and values, in their order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (&name[..], &value[..]))
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self.fields().filter(|(one, _)| *one == name.as_bytes());
        found.next().map(|(_, value)| value)
    }

    /// The value of the first field with this name, as text; `None` if it is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// The id of the message: derived from the topic and the entry's id, so that every delivery to
    /// every group sees the same one.
    #[must_use]
    pub fn message_id(&self) -> Uuid {
        derived_id(self.topic, self.id)
    }

    /// Wraps a payload in an envelope with the entry's [message id](Self::message_id) and the time of
    /// the entry, without a correlation id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if the payload cannot be encoded.
    pub fn envelope<T: Serialize + ?Sized>(
        &self,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Result<Envelope, Error> {
        let mut envelope = Envelope::new(message_type, payload)?;
        envelope.id = self.message_id();
        envelope.created_at = self.appended();
        envelope.correlation = None;
        Ok(envelope)
    }

    /// As [`envelope`](Self::envelope), around an encoded payload.
    fn wrap(&self, message_type: String, payload: RawPayload) -> Envelope {
        Envelope {
            id: self.message_id(),
            message_type,
            created_at: self.appended(),
            correlation: None,
            tenant: None,
            key: None,
            headers: std::collections::BTreeMap::new(),
            payload,
            failed_attempts: 0,
            last_error: None,
            unknown: std::collections::BTreeMap::new(),
            inherited: InheritedTrace::default(),
        }
    }

    fn appended(&self) -> Timestamp {
        self.id.time().unwrap_or(Timestamp::MAX)
    }
}

/// The answers of a reader of foreign entries: `Option<Envelope>`, or `Result<Option<Envelope>, String>`
/// with the reason why an entry that the reader knows is broken.
pub trait ForeignAnswer {
    #[doc(hidden)]
    fn into_answer(self) -> Result<Option<Envelope>, String>;
}

impl ForeignAnswer for Option<Envelope> {
    fn into_answer(self) -> Result<Option<Envelope>, String> {
        Ok(self)
    }
}

impl ForeignAnswer for Result<Option<Envelope>, String> {
    fn into_answer(self) -> Result<Option<Envelope>, String> {
        self
    }
}

type Read = dyn Fn(&ForeignEntry<'_>) -> Result<Option<Envelope>, String> + Send + Sync;

/// The readers of foreign entries, in the order in which they are asked.
#[derive(Clone, Default)]
pub(crate) struct Foreign {
    readers: Vec<Arc<Read>>,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Foreign").field(&self.readers.len()).finish()
    }
}

impl Foreign {
    pub(crate) fn add<F, A>(&mut self, read: F)
    where
        F: Fn(&ForeignEntry<'_>) -> A + Send + Sync + 'static,
        A: ForeignAnswer,
    {
        let read = move |entry: &ForeignEntry<'_>| read(entry).into_answer();
        self.readers.push(Arc::new(read));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// Asks the readers. `None` where none of them knows the entry.
    pub(super) fn read(&self, entry: &ForeignEntry<'_>) -> Result<Option<Envelope>, Undecodable> {
        for reader in &self.readers {
            if let Some(envelope) = ask(reader, entry).map_err(Undecodable::from)? {
                return Ok(Some(envelope));
            }
        }
        Ok(None)
    }
}

/// Asks one reader, and replaces the parts of its answer that another delivery would not see again.
///
/// A reader that calls `Envelope::new` gives each answer a fresh id, a fresh correlation id and the
/// current time. A second answer shows which parts are fresh.
fn ask(reader: &Arc<Read>, entry: &ForeignEntry<'_>) -> Result<Option<Envelope>, String> {
    let call = || {
        let answer = catch_unwind(AssertUnwindSafe(|| reader(entry)));
        answer.unwrap_or_else(|panic| Err(panic_text_of("the reader of foreign entries", panic)))
    };
    let before = Timestamp::now();
    let Some(mut envelope) = call()? else {
        return Ok(None);
    };
    let again = call()?;
    let after = Timestamp::now();
    let again = again.as_ref();
    if envelope.id.is_nil() || again.is_none_or(|again| again.id != envelope.id) {
        envelope.id = entry.message_id();
    }
    if again.is_none_or(|again| again.correlation != envelope.correlation) {
        envelope.correlation = None;
    }
    if (before..=after).contains(&envelope.created_at) {
        envelope.created_at = entry.appended();
    }
    envelope.reset_attempts();
    Ok(Some(envelope))
}

/// A field of a stored entry, by its name.
fn is_envelope_field(name: &[u8]) -> bool {
    matches!(name, b"msgpack" | b"json" | b"cloudevents")
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Decoder, Limits};

    pub(in crate::wire) const ENTRY: EntryId = EntryId::new(1_762_957_200_123, 7);

    pub(super) fn fields(pairs: &[(&str, &str)]) -> Fields {
        let owned = |(name, value): &(&str, &str)| {
            let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
            (bytes(name), bytes(value))
        };
        pairs.iter().map(owned).collect()
    }

    /// Decodes an entry as a worker with this reader does.
    pub(super) fn decode<F, A>(read: F, pairs: &[(&str, &str)]) -> Result<Envelope, String>
    where
        F: Fn(&ForeignEntry<'_>) -> A + Send + Sync + 'static,
        A: ForeignAnswer,
    {
        let mut foreign = Foreign::default();
        foreign.add(read);
        let decoder = Decoder::new(Limits::default()).with_foreign(foreign);
        let topic = Topic::new("orders").unwrap();
        let decoded = decoder.decode(&topic, ENTRY, &fields(pairs));
        decoded.envelope.map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn a_fresh_id_a_fresh_correlation_and_the_current_time_give_way_to_those_of_the_entry() {
        let fresh = |entry: &ForeignEntry<'_>| Envelope::new("t", entry.text("n")?).ok();
        let read = || decode(fresh, &[("n", "1")]).unwrap();
        let (first, second) = (read(), read());
        assert_eq!(first, second);
        assert_eq!(
            first.id(),
            derived_id(&Topic::new("orders").unwrap(), ENTRY)
        );
        assert_eq!(first.created_at().to_string(), "2025-11-12T14:20:00.123Z");
        assert_eq!(first.correlation(), None);
        let nil = |_: &ForeignEntry<'_>| Some(Envelope::new("t", &1).ok()?.with_id(Uuid::nil()));
        assert_eq!(decode(nil, &[("n", "1")]).unwrap().id(), first.id());
    }

    #[test]
    fn an_id_and_a_correlation_of_the_producer_stay() {
        let own = |entry: &ForeignEntry<'_>| {
            let id = Uuid::try_parse(entry.text("id")?).ok()?;
            Some(
                Envelope::new("t", &1)
                    .ok()?
                    .with_id(id)
                    .with_correlation("c"),
            )
        };
        let id = "0190163d-8694-739b-aea5-966c26f8ad90";
        let read = decode(own, &[("id", id)]).unwrap();
        assert_eq!(read.id().to_string(), id);
        assert_eq!(read.correlation(), Some("c"));
    }

    #[test]
    fn a_reader_is_asked_only_for_entries_without_a_readable_envelope() {
        let any = |entry: &ForeignEntry<'_>| entry.envelope("foreign", &1).ok();
        let native = [("json", r#"{"type":"native","payload":1}"#), ("n", "1")];
        assert_eq!(decode(any, &native).unwrap().message_type(), "native");
        let broken = [("json", "{")];
        assert_eq!(decode(any, &broken).unwrap().message_type(), "foreign");
    }

    #[test]
    fn the_first_reader_that_knows_an_entry_wins() {
        let mut foreign = Foreign::default();
        foreign.add(|_: &ForeignEntry<'_>| None);
        foreign.add(|entry: &ForeignEntry<'_>| entry.envelope("second", &1).ok());
        foreign.add(|entry: &ForeignEntry<'_>| entry.envelope("third", &1).ok());
        let (topic, fields) = (Topic::new("orders").unwrap(), fields(&[("n", "1")]));
        let entry = ForeignEntry::new(&topic, ENTRY, &fields);
        let read = foreign.read(&entry).unwrap().unwrap();
        assert_eq!(read.message_type(), "second");
    }

    #[test]
    fn an_entry_that_no_reader_knows_keeps_its_rule_and_a_broken_one_gets_its_own() {
        let none = |_: &ForeignEntry<'_>| None;
        let rule = decode(none, &[("n", "1")]).unwrap_err();
        assert!(rule.starts_with("no field named"), "{rule}");
        let broken = |_: &ForeignEntry<'_>| Err("half a record".to_owned());
        assert_eq!(decode(broken, &[("n", "1")]).unwrap_err(), "half a record");
        let panics = |_: &ForeignEntry<'_>| -> Option<Envelope> { panic!("no record {}", 7) };
        let rule = decode(panics, &[("n", "1")]).unwrap_err();
        assert!(rule.contains("panicked: no record 7"), "{rule}");
    }

    #[test]
    fn an_entry_over_the_limit_is_not_shown_to_a_reader() {
        let mut foreign = Foreign::default();
        foreign.add(|_: &ForeignEntry<'_>| -> Option<Envelope> { panic!("asked") });
        let limits = Limits::default().with_max_bytes(100);
        let decoder = Decoder::new(limits).with_foreign(foreign);
        let fields = fields(&[("n", &"x".repeat(60)), ("m", &"x".repeat(60))]);
        let decoded = decoder.decode(&Topic::new("orders").unwrap(), ENTRY, &fields);
        let rule = decoded.envelope.unwrap_err().to_string();
        assert_eq!(rule, "122 bytes, over the limit of 100");
    }

    #[test]
    fn the_content_of_an_entry_is_not_shown() {
        let (topic, fields) = (Topic::new("orders").unwrap(), fields(&[("n", "canary")]));
        let shown = format!("{:?}", ForeignEntry::new(&topic, ENTRY, &fields));
        assert!(
            shown.contains("\"n\"") && !shown.contains("canary"),
            "{shown}"
        );
    }
}
