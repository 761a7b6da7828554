//! A message on its way through the publish pipeline.

use std::borrow::Cow;
use std::mem;

use crate::api::{PublishOptions, Published};
use crate::domain::{Envelope, Error, ErrorKind, Topic};
use crate::store::{Appended, NewEntry};
use crate::wire::{Arena, Encoder};

/// The state of one message. The drafts of a call keep the order of its messages.
#[derive(Debug)]
pub(super) enum Draft {
    /// Encoded, and its fate is open.
    Open {
        entry: NewEntry,
        /// The error of the last try, if there was one.
        error: Option<Error>,
    },
    Done(Result<Published, Error>),
}

/// A message that has passed the hooks, or that one of them refused.
#[derive(Debug)]
pub(super) struct Hooked {
    pub(super) topic: Topic,
    /// As the hooks left it.
    pub(super) envelope: Envelope,
    /// A message for later has no entry yet.
    pub(super) is_later: bool,
}

/// Encodes messages. A message that breaks a rule fails alone.
pub(super) fn encode(
    envelopes: &[Envelope],
    options: PublishOptions,
    encoder: &Encoder,
) -> Vec<Draft> {
    let mut arena = Arena::new(envelopes.len());
    let draft = |envelope: &Envelope| match encoder.encode(&begin(envelope), &mut arena) {
        Ok((name, value)) => Draft::Open {
            entry: NewEntry {
                id: options.identity(envelope),
                name,
                value,
                slot: None,
            },
            error: None,
        },
        Err(error) => Draft::Done(Err(error)),
    };
    envelopes.iter().map(draft).collect()
}

/// Adds the slots of the messages' keys to their drafts. Only a topic with several partitions needs them.
pub(super) fn add_slots(drafts: &mut [Draft], envelopes: &[Envelope]) {
    for (draft, envelope) in drafts.iter_mut().zip(envelopes) {
        if let Draft::Open { entry, .. } = draft {
            entry.slot = envelope.slot();
        }
    }
}

/// A message begins at attempt 0 in each topic, whatever it failed as in another. Copies only an
/// envelope that was received after a failed attempt.
pub(super) fn begin(envelope: &Envelope) -> Cow<'_, Envelope> {
    if envelope.failed_attempts() == 0 && envelope.last_error().is_none() {
        return Cow::Borrowed(envelope);
    }
    let mut begun = envelope.clone();
    begun.reset_attempts();
    Cow::Owned(begun)
}

/// Fails all open drafts after the first `admitted` ones.
pub(super) fn refuse_after(admitted: u64, drafts: &mut [Draft], error: &Error) {
    let admitted = usize::try_from(admitted).unwrap_or(usize::MAX);
    let open = drafts.iter_mut().filter(|draft| draft.is_open());
    for draft in open.skip(admitted) {
        *draft = Draft::Done(Err(error.clone()));
    }
}

/// Moves the entries of the open drafts out, for a single try.
pub(super) fn move_entries(drafts: &mut [Draft]) -> Vec<NewEntry> {
    let entry = |draft: &mut Draft| match draft {
        Draft::Open { entry, .. } => Some(NewEntry {
            value: mem::take(&mut entry.value),
            ..*entry
        }),
        Draft::Done(_) => None,
    };
    let mut entries = Vec::with_capacity(drafts.len());
    entries.extend(drafts.iter_mut().filter_map(entry));
    entries
}

/// Copies the entries of the open drafts, so that a further try can send them again.
pub(super) fn copy_entries(drafts: &[Draft]) -> Vec<NewEntry> {
    let entry = |draft: &Draft| match draft {
        Draft::Open { entry, .. } => Some(entry.clone()),
        Draft::Done(_) => None,
    };
    drafts.iter().filter_map(entry).collect()
}

/// Notes the results of the only try, in the order of the open drafts.
pub(super) fn finish(
    drafts: &mut [Draft],
    results: impl IntoIterator<Item = Result<Appended, Error>>,
) {
    let mut results = results.into_iter();
    for draft in drafts.iter_mut().filter(|draft| draft.is_open()) {
        let result = results.next().unwrap_or_else(|| Err(no_answer()));
        *draft = Draft::Done(result.map(published));
    }
}

/// Notes the results of one of several tries, in the order of the open drafts. A draft whose error
/// is retryable stays open.
pub(super) fn note_try(
    drafts: &mut [Draft],
    results: impl IntoIterator<Item = Result<Appended, Error>>,
) {
    let mut results = results.into_iter();
    for draft in drafts {
        let Draft::Open { error, .. } = draft else {
            continue;
        };
        match results.next().unwrap_or_else(|| Err(no_answer())) {
            // An earlier try may have appended it, whatever this try says about itself.
            Err(_) if error.as_ref().is_some_and(Error::is_outcome_unknown) => {}
            Err(now) if now.is_retryable() => *error = Some(now),
            result => *draft = Draft::Done(result.map(published)),
        }
    }
}

/// The failure of a whole call as the result of each of its entries.
pub(super) fn alike<T>(error: &Error, count: usize) -> Vec<Result<T, Error>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

fn published(appended: Appended) -> Published {
    Published {
        id: appended.id,
        duplicate: appended.duplicate,
    }
}

/// An adapter returned fewer results than it got entries.
fn no_answer() -> Error {
    let rule = "the store gave no result for this message";
    Error::new(ErrorKind::OutcomeUnknown, "publish", rule)
}

impl Draft {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Open { error, .. } => error.as_ref().is_some_and(Error::is_outcome_unknown),
            Self::Done(_) => false,
        }
    }

    pub(super) fn into_result(self) -> Result<Published, Error> {
        match self {
            Self::Done(result) => result,
            Self::Open { error, .. } => Err(error.unwrap_or_else(no_answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Codec, EntryId, Topic};
    use crate::wire::{Limits, decode_entry};

    fn envelopes(sizes: &[usize]) -> Vec<Envelope> {
        let envelope = |size: &usize| Envelope::new("t", &"x".repeat(*size)).unwrap();
        sizes.iter().map(envelope).collect()
    }

    fn drafts(sizes: &[usize]) -> Vec<Draft> {
        let limits = Limits::default().with_max_bytes(1000);
        let options = PublishOptions::new();
        encode(
            &envelopes(sizes),
            options,
            &Encoder::new(Codec::MessagePack, limits),
        )
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "publish", "no")
    }

    fn appended(sequence: u64, duplicate: bool) -> Appended {
        let id = EntryId::new(1, sequence);
        Appended { id, duplicate }
    }

    /// What became of each: the sequence of its entry, or the kind of its error.
    fn fates(drafts: Vec<Draft>) -> Vec<Result<u64, ErrorKind>> {
        let fate = |draft: Draft| match draft.into_result() {
            Ok(published) => Ok(published.id.sequence),
            Err(error) => Err(error.kind()),
        };
        drafts.into_iter().map(fate).collect()
    }

    #[test]
    fn a_message_that_is_too_large_fails_alone_and_keeps_its_place() {
        let mut drafts = drafts(&[1, 2000, 1]);
        assert_eq!(move_entries(&mut drafts).len(), 2);
        finish(
            &mut drafts,
            [Ok(appended(7, false)), Ok(appended(8, false))],
        );
        assert_eq!(fates(drafts), [Ok(7), Err(ErrorKind::TooLarge), Ok(8)]);
    }

    #[test]
    fn the_backlog_limit_refuses_the_last_ones() {
        let mut drafts = drafts(&[1, 2000, 1, 1]);
        refuse_after(1, &mut drafts, &error(ErrorKind::BacklogFull));
        assert_eq!(move_entries(&mut drafts).len(), 1);
        finish(&mut drafts, [Ok(appended(7, false))]);
        let full = Err(ErrorKind::BacklogFull);
        assert_eq!(fates(drafts), [Ok(7), Err(ErrorKind::TooLarge), full, full]);
    }

    #[test]
    fn a_message_without_a_result_may_have_been_published() {
        let mut drafts = drafts(&[1, 1]);
        finish(&mut drafts, [Ok(appended(7, false))]);
        assert_eq!(fates(drafts), [Ok(7), Err(ErrorKind::OutcomeUnknown)]);
    }

    #[test]
    fn only_open_messages_are_tried_again_and_keep_their_identity() {
        let mut drafts = drafts(&[1, 1, 1, 1]);
        let sent = copy_entries(&drafts);
        note_try(
            &mut drafts,
            [
                Ok(appended(7, false)),
                Err(error(ErrorKind::OutcomeUnknown)),
                Err(error(ErrorKind::Unavailable)),
                Err(error(ErrorKind::Refused)),
            ],
        );
        let again: Vec<_> = copy_entries(&drafts).iter().map(|entry| entry.id).collect();
        assert_eq!(again, [sent[1].id, sent[2].id]);
        assert!(drafts.iter().any(Draft::is_unknown));
        note_try(&mut drafts, [Ok(appended(8, true)), Ok(appended(9, false))]);
        assert_eq!(
            fates(drafts),
            [Ok(7), Ok(8), Ok(9), Err(ErrorKind::Refused)]
        );
    }

    #[test]
    fn an_unknown_outcome_stays_unknown_until_a_try_succeeds() {
        let mut drafts = drafts(&[1]);
        for kind in [
            ErrorKind::OutcomeUnknown,
            ErrorKind::Unavailable,
            ErrorKind::Refused,
        ] {
            note_try(&mut drafts, [Err(error(kind))]);
            assert!(drafts[0].is_unknown(), "{kind}");
        }
        assert_eq!(fates(drafts), [Err(ErrorKind::OutcomeUnknown)]);
    }

    #[test]
    fn a_received_message_begins_at_its_first_attempt_when_it_is_published() {
        let mut received = Envelope::new("t", &1).unwrap();
        received.failed_attempts = 3;
        received.last_error = Some("no".to_owned());
        let limits = Limits::default();
        let mut drafts = encode(
            &[received],
            PublishOptions::new(),
            &Encoder::new(Codec::Json, limits),
        );
        let entry = move_entries(&mut drafts).remove(0);
        let fields = [(entry.name.as_bytes(), entry.value)];
        let (topic, id) = (Topic::new("orders").unwrap(), EntryId::default());
        let fields = fields.iter().map(|(name, value)| (*name, &value[..]));
        let sent = decode_entry(&topic, id, fields, limits).unwrap();
        assert_eq!((sent.failed_attempts(), sent.last_error()), (0, None));
    }
}
