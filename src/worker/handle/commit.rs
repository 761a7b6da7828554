//! Commit: from a verdict to what the store writes, and on to the settlers.

use std::time::Duration;

use bytes::Bytes;

use crate::api::lease::Lease;
use crate::domain::{
    DeadLetter, DeliveryHistory, Envelope, Error, FailedAttempt, Reason, Timestamp, Verdict,
    describe, fingerprint,
};
use crate::store::{Commit, DeliveryId, Fields, Member};
use crate::wire::dead_letter::encode_record;
use crate::wire::redelivery::Redelivery;
use crate::wire::{Limits, Undecodable, encode_entry, with_envelope, with_later_envelope};
use crate::worker::core::{Core, Write};
use crate::worker::handle::count::LOST_ERROR;
use crate::worker::handle::decode::Entry;
use crate::worker::intake::in_flight::HandOut;

/// Passes the ending of a delivery to the settlers.
///
/// A failure whose lease was lost is dropped, because another consumer has the message. An
/// acknowledgement is passed on even then: the work is done.
pub(super) async fn commit(
    core: &Core,
    lease: &Lease,
    entry: Entry,
    envelope: &Envelope,
    verdict: Verdict,
) {
    let id = entry.id;
    let ending = match verdict {
        Verdict::Ack => return acknowledge(core, lease, id).await,
        Verdict::Reschedule {
            delay,
            attempts,
            error,
        } => Consumer::of(core, Some(&envelope.message_type))
            .reschedule(entry, envelope, delay, attempts, error),
        Verdict::DeadLetter {
            reason,
            attempts,
            error,
        } => Consumer::of(core, Some(&envelope.message_type))
            .dead_letter(entry, envelope, reason, attempts, error),
    };
    write(core, lease, id, ending).await;
}

/// Lets a message come back to its group after a delay. Counts and logs nothing, because no attempt
/// has ended.
pub(super) async fn put_back(
    core: &Core,
    lease: &Lease,
    entry: Entry,
    envelope: &Envelope,
    failed: u32,
    delay: Duration,
) {
    let id = entry.id;
    let consumer = Consumer::of(core, Some(&envelope.message_type));
    let ending = consumer.reschedule(entry, envelope, delay, failed, None);
    if matches!(ending, Ending::DeadLetter(_)) {
        report(core, &ending);
    }
    pass_on(core, lease, id, ending).await;
}

/// Adds the failure of an attempt to the history of its message.
pub(super) fn record_failure(core: &Core, history: &mut DeliveryHistory, number: u32, error: &str) {
    Consumer::of(core, None).record(history, number, error);
}

/// Passes an entry whose envelope does not decode on to the dead letters.
pub(super) async fn commit_undecodable(
    core: &Core,
    lease: &Lease,
    entry: Entry,
    attempts: u32,
    error: &Undecodable,
) {
    let id = entry.id;
    let ending = Consumer::of(core, None).undecodable(entry, attempts, error.to_string());
    write(core, lease, id, ending).await;
}

pub(super) async fn acknowledge(core: &Core, lease: &Lease, id: DeliveryId) {
    lease.finish();
    core.pressure.clear();
    let (acks, token) = (core.acks.of(id), lease.token());
    if let Err(full) = acks.try_send(HandOut { id, token }) {
        core.queue.pass_on();
        let _ = acks.send(full.into_inner()).await;
    }
}

async fn write(core: &Core, lease: &Lease, id: DeliveryId, ending: Ending) {
    report(core, &ending);
    pass_on(core, lease, id, ending).await;
}

async fn pass_on(core: &Core, lease: &Lease, id: DeliveryId, ending: Ending) {
    if lease.is_lost() {
        return;
    }
    lease.finish();
    let name = ending.name();
    let write = Write {
        commit: if lease.is_only_copy() {
            ending.into_commit(id).of_only_copy()
        } else {
            ending.into_commit(id)
        },
        token: lease.token(),
        name,
    };
    // The settlers outlive the workers, so sending succeeds.
    let writes = core.writes.of(id);
    if let Err(full) = writes.try_send(write) {
        core.queue.pass_on();
        let _ = writes.send(full.into_inner()).await;
    }
}

/// Counts and logs an ending.
fn report(core: &Core, ending: &Ending) {
    match ending {
        Ending::Reschedule { failed: true, .. } => core.meters.retried.increment(1),
        Ending::Reschedule { failed: false, .. } => core.meters.snoozed.increment(1),
        Ending::DeadLetter(dead) => {
            core.meters.count_dead_letter(dead.reason);
            tracing::warn!(
                subscription = %core.member,
                entry = %dead.history.origin,
                reason = %dead.reason,
                attempts = dead.attempts,
                error = dead.error.as_str(),
                "dead letter",
            );
        }
    }
}

/// How a delivery ends that is not acknowledged.
#[derive(Debug)]
enum Ending {
    Reschedule {
        delay: Duration,
        redelivery: Bytes,
        /// Whether an attempt failed; false for a snooze.
        failed: bool,
    },
    DeadLetter(Box<DeadLetter>),
}

impl Ending {
    /// As [`outcome_name`](crate::api::traces::outcome_name) has it.
    fn name(&self) -> &'static str {
        match self {
            Self::Reschedule { failed: true, .. } => "retry",
            Self::Reschedule { failed: false, .. } => "snooze",
            Self::DeadLetter(_) => "dead_letter",
        }
    }

    fn into_commit(self, id: DeliveryId) -> Commit {
        match self {
            Self::Reschedule {
                delay, redelivery, ..
            } => Commit::reschedule(id, delay, redelivery),
            Self::DeadLetter(dead) => Commit::dead_letter(id, encode_record(&dead)),
        }
    }
}

/// The consumer that signs an ending, and when.
#[derive(Clone, Copy)]
struct Consumer<'a> {
    member: &'a Member,
    handler: &'a str,
    now: Timestamp,
}

impl<'a> Consumer<'a> {
    fn of(core: &'a Core, message_type: Option<&str>) -> Self {
        Self {
            member: &core.member,
            handler: core.handler_name(message_type),
            now: core.store.now(),
        }
    }

    /// Builds the ending of a retry, or, without an error, of a snooze.
    fn reschedule(
        self,
        mut entry: Entry,
        envelope: &Envelope,
        delay: Duration,
        attempts: u32,
        error: Option<String>,
    ) -> Ending {
        let failed = error.is_some();
        if let Some(error) = &error {
            self.record(&mut entry.history, attempts, error);
        }
        match redelivery(&entry, envelope, attempts, error) {
            Ok(redelivery) => Ending::Reschedule {
                delay,
                redelivery,
                failed,
            },
            Err(error) => {
                let (reason, error) = (Reason::Undecodable, describe(&error));
                self.bare_dead_letter(entry, Some(envelope), reason, attempts, error)
            }
        }
    }

    /// Builds the dead letter of a delivery whose handler was called or crashed.
    fn dead_letter(
        self,
        mut entry: Entry,
        envelope: &Envelope,
        reason: Reason,
        attempts: u32,
        error: String,
    ) -> Ending {
        // The count step has recorded a crash and a lost failure already.
        if reason != Reason::Crashed && error != LOST_ERROR {
            self.record(&mut entry.history, attempts, &error);
        }
        self.bare_dead_letter(entry, Some(envelope), reason, attempts, error)
    }

    /// Builds the dead letter of an entry whose envelope does not decode.
    fn undecodable(self, entry: Entry, attempts: u32, error: String) -> Ending {
        self.bare_dead_letter(entry, None, Reason::Undecodable, attempts, error)
    }

    fn record(self, history: &mut DeliveryHistory, number: u32, error: &str) {
        history.record(FailedAttempt {
            number,
            at: self.now,
            consumer: self.member.consumer.to_string(),
            error: error.to_owned(),
        });
    }

    fn bare_dead_letter(
        self,
        mut entry: Entry,
        envelope: Option<&Envelope>,
        reason: Reason,
        attempts: u32,
        error: String,
    ) -> Ending {
        if let Some(envelope) = envelope.filter(|_| entry.is_foreign) {
            entry.fields = of_foreign(entry.fields, envelope);
        }
        // A dead letter names at least one failed attempt.
        if entry.history.failures.is_empty() {
            self.record(&mut entry.history, attempts, &error);
        }
        Ending::DeadLetter(Box::new(DeadLetter {
            id: entry.id.id,
            topic: self.member.topic().clone(),
            group: self.member.group().clone(),
            reason,
            fingerprint: fingerprint(&error),
            error,
            handler: self.handler.to_owned(),
            consumer: self.member.consumer.to_string(),
            message_type: envelope.map_or_else(String::new, |it| it.message_type.clone()),
            tenant: envelope.and_then(|it| it.tenant.clone()),
            correlation: envelope.and_then(|it| it.correlation.clone()),
            message_id: envelope.map(|it| it.id),
            attempts,
            last_failure: self.now,
            history: entry.history,
            fields: entry.fields,
            imported_from: None,
        }))
    }
}

/// The fields of the dead letter of a foreign entry: its envelope, so that every tool can read it, and
/// the original.
fn of_foreign(fields: Fields, envelope: &Envelope) -> Fields {
    let codec = envelope.payload.codec();
    match encode_entry(envelope, codec, Limits::default().without_bound()) {
        Ok((name, bytes)) => with_envelope(&fields, name, bytes),
        // A redrive asks the readers again.
        Err(_) => fields,
    }
}

/// Encodes the redelivery in which a message comes back to its group.
fn redelivery(
    entry: &Entry,
    envelope: &Envelope,
    attempts: u32,
    error: Option<String>,
) -> Result<Bytes, Error> {
    let mut envelope = envelope.clone();
    envelope.failed_attempts = attempts;
    if error.is_some() {
        envelope.last_error = error;
    }
    let codec = envelope.payload.codec();
    // A message that was small enough to come in must not be lost for its error text.
    let (name, bytes) = encode_entry(&envelope, codec, Limits::default().without_bound())?;
    let fields = match entry.is_foreign {
        true => with_envelope(&entry.fields, name, bytes),
        false => with_later_envelope(&entry.fields, name, bytes),
    };
    let redelivery = Redelivery {
        fields,
        history: entry.history.clone(),
        starts_over: false,
    };
    Ok(redelivery.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ConsumerName;
    use crate::store::Lane;
    use crate::wire::Decoder;
    use crate::wire::foreign::{Foreign, ForeignEntry};
    use crate::worker::handle::decode::decode;
    use crate::worker::handle::decode::tests::{envelope, fetched, fields, history};

    const SECOND: Duration = Duration::from_secs(1);

    fn member() -> Member {
        let (topic, group) = ("orders".parse().unwrap(), "billing".parse().unwrap());
        Member::of(&topic, &group, ConsumerName::new("one").unwrap())
    }

    fn consumer(member: &Member) -> Consumer<'_> {
        Consumer {
            member,
            handler: "bill",
            now: Timestamp::from_millis(1_762_957_300_000).unwrap(),
        }
    }

    fn entry(of: &Envelope) -> Entry {
        let fetched = fetched(Lane::Log, fields(of));
        decode(member().topic(), fetched, &Decoder::default()).0
    }

    /// Decodes a redelivery as the next consumer will.
    fn next(redelivery: Bytes) -> (Entry, Envelope) {
        let fields = vec![(Bytes::from_static(b"parcel"), redelivery)];
        let fetched = fetched(Lane::Redelivery, fields);
        let (entry, envelope) = decode(member().topic(), fetched, &Decoder::default());
        (entry, envelope.unwrap())
    }

    fn rescheduled(attempts: u32, error: Option<&str>) -> (Entry, Envelope, bool) {
        let (of, member) = (envelope(1), member());
        let mut entry = entry(&of);
        entry.history = history();
        let error = error.map(str::to_owned);
        match consumer(&member).reschedule(entry, &of, SECOND, attempts, error) {
            Ending::Reschedule {
                delay,
                redelivery,
                failed,
            } => {
                assert_eq!(delay, SECOND);
                let (entry, envelope) = next(redelivery);
                assert_eq!(envelope.id(), of.id());
                (entry, envelope, failed)
            }
            Ending::DeadLetter(dead) => panic!("dead letter: {dead:?}"),
        }
    }

    #[test]
    fn a_retry_carries_its_attempts_its_error_and_its_history() {
        let (entry, envelope, failed) = rescheduled(2, Some("printer jammed"));
        assert!(failed);
        assert_eq!(envelope.failed_attempts(), 2);
        assert_eq!(envelope.last_error(), Some("printer jammed"));
        assert_eq!(entry.history.origin, history().origin);
        let errors: Vec<_> = entry
            .history
            .failures
            .iter()
            .map(|it| &it.error[..])
            .collect();
        assert_eq!(errors, ["disk full", "printer jammed"]);
    }

    #[test]
    fn a_snooze_leaves_attempts_error_and_history_as_they_are() {
        let (entry, envelope, failed) = rescheduled(1, None);
        assert!(!failed);
        assert_eq!(envelope.failed_attempts(), 1);
        assert_eq!(envelope.last_error(), None);
        assert_eq!(entry.history, history());
    }

    fn dead(ending: Ending) -> DeadLetter {
        match ending {
            Ending::DeadLetter(dead) => *dead,
            ending @ Ending::Reschedule { .. } => panic!("rescheduled: {ending:?}"),
        }
    }

    fn no_account() -> String {
        "no account 17".to_owned()
    }

    #[test]
    fn a_dead_letter_keeps_the_entry_and_names_consumer_and_handler() {
        let (of, member) = (envelope(2), member());
        let ending =
            consumer(&member).dead_letter(entry(&of), &of, Reason::Rejected, 3, no_account());
        let dead = dead(ending);
        assert_eq!(dead.fields, fields(&of));
        assert_eq!(
            (dead.message_type.as_str(), dead.message_id),
            ("order.placed", Some(of.id()))
        );
        assert_eq!(dead.tenant.as_deref(), Some("ann"));
        assert_eq!(
            (dead.handler.as_str(), dead.consumer.as_str()),
            ("bill", "one")
        );
        assert_eq!((dead.reason, dead.attempts), (Reason::Rejected, 3));
        assert_eq!(dead.fingerprint, fingerprint("no account 17"));
        let [failure] = &dead.history.failures[..] else {
            panic!("{:?}", dead.history);
        };
        assert_eq!((failure.number, failure.at), (3, dead.last_failure));
    }

    #[test]
    fn a_crash_is_not_recorded_twice_and_an_undecodable_entry_at_least_once() {
        let (of, member) = (envelope(2), member());
        let mut crashed = entry(&of);
        crashed.history = history();
        let ending = consumer(&member).dead_letter(crashed, &of, Reason::Crashed, 3, no_account());
        assert_eq!(dead(ending).history, history());

        let ending = consumer(&member).undecodable(entry(&of), 1, no_account());
        let undecodable = dead(ending);
        assert_eq!(undecodable.history.failures.len(), 1);
        assert_eq!(undecodable.reason, Reason::Undecodable);
        assert_eq!(
            (undecodable.message_type.as_str(), undecodable.message_id),
            ("", None)
        );
    }

    /// A foreign entry, decoded by a worker with a reader.
    fn foreign_entry() -> (Entry, Envelope) {
        let mut foreign = Foreign::default();
        foreign.add(|entry: &ForeignEntry<'_>| entry.envelope("login", entry.text("user")?).ok());
        let decoder = Decoder::default().with_foreign(foreign);
        let (entry, envelope) = decode(member().topic(), fetched(Lane::Log, original()), &decoder);
        (entry, envelope.unwrap())
    }

    /// The fields of a foreign entry; one has the name of an envelope.
    fn original() -> Fields {
        let pairs = [("user", "ann"), ("json", "{")];
        let owned = |(name, value): (&'static str, &'static str)| {
            (
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        };
        pairs.into_iter().map(owned).collect()
    }

    #[test]
    fn a_retry_of_a_foreign_entry_needs_no_reader_and_keeps_the_original() {
        let member = member();
        let (mut current, mut of) = foreign_entry();
        let id = of.id();
        for attempt in 1..=2 {
            let error = Some("printer jammed".to_owned());
            let ending = consumer(&member).reschedule(current, &of, SECOND, attempt, error);
            let Ending::Reschedule { redelivery, .. } = ending else {
                panic!("{ending:?}");
            };
            (current, of) = next(redelivery);
            assert_eq!((of.id(), of.failed_attempts()), (id, attempt));
            assert_eq!(of.message_type(), "login");
            assert_eq!(current.fields[1..], original()[..], "attempt {attempt}");
        }
    }

    #[test]
    fn a_dead_letter_of_a_foreign_entry_has_its_envelope_and_the_original() {
        let member = member();
        let (entry, of) = foreign_entry();
        let error = "printer jammed".to_owned();
        let ending = consumer(&member).dead_letter(entry, &of, Reason::Exhausted, 1, error);
        let Ending::DeadLetter(dead) = ending else {
            panic!("{ending:?}");
        };
        assert_eq!(dead.fields[1..], original()[..]);
        assert_eq!(dead.message_id, Some(of.id()));
        assert_eq!(dead.message_type, "login");
        let decoder = Decoder::default();
        let decoded = decoder.decode(member.topic(), dead.history.origin, &dead.fields);
        assert_eq!(decoded.envelope.unwrap(), of);
    }
}
