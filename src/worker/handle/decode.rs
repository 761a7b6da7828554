//! Decode: from a fetched entry to its envelope and its history. Pure.

use crate::domain::{DeliveryHistory, Envelope, Topic};
use crate::store::{DeliveryId, Fetched, Fields, Kind, Lane};
use crate::wire::redelivery::Redelivery;
use crate::wire::{Decoded, Decoder, Undecodable};
use crate::worker::hold_back::again::Again;

/// The entry of a delivery, whether or not its envelope decodes.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: DeliveryId,
    /// The fields as the producer wrote them: a dead letter stores them byte for byte.
    pub(super) fields: Fields,
    pub(super) history: DeliveryHistory,
    /// Whether the fields hold the message in a form that the wire format does not have: a retry and
    /// a dead letter then have the envelope too.
    pub(super) is_foreign: bool,
    /// Whether the message comes back with its attempts, and not from its producer.
    pub(super) is_redelivery: bool,
}

/// Decodes a message again that this process has decoded before.
pub(super) fn decode_again(
    topic: &Topic,
    fetched: Fetched,
    again: Again,
    decoder: &Decoder,
) -> (Entry, Result<Envelope, Undecodable>) {
    let Fetched {
        receipt: id,
        fields,
        ..
    } = fetched;
    let history = again.history;
    let Decoded {
        mut envelope,
        is_foreign,
    } = match id.lane {
        Lane::Log => decoder.decode(topic, id.id, &fields),
        Lane::Redelivery => decoder.decode_retry(topic, history.origin, &fields),
    };
    // As in the redelivery of a retry that the store scheduled.
    if let Ok(envelope) = &mut envelope {
        envelope.failed_attempts = again.failed;
        envelope.last_error = Some(again.error);
    }
    let entry = Entry {
        id,
        fields,
        history,
        is_foreign,
        is_redelivery: id.lane == Lane::Redelivery,
    };
    (entry, envelope)
}

/// Decodes a fetched entry of either lane.
pub(super) fn decode(
    topic: &Topic,
    fetched: Fetched,
    decoder: &Decoder,
) -> (Entry, Result<Envelope, Undecodable>) {
    let Fetched {
        receipt: id,
        fields,
        kind,
        ..
    } = fetched;
    let is_redelivery = id.lane == Lane::Redelivery || kind == Kind::Kept;
    let undecodable = |fields, error| {
        let history = DeliveryHistory::from(id.id);
        let entry = Entry {
            id,
            fields,
            history,
            is_foreign: false,
            is_redelivery,
        };
        (entry, Err(error))
    };
    let (fields, history, starts_over, decoded) = if !is_redelivery {
        let history = DeliveryHistory::from(id.id);
        let decoded = decoder.decode(topic, id.id, &fields);
        (fields, history, false, decoded)
    } else {
        let redelivery = match Redelivery::decode(&fields) {
            Ok(redelivery) => redelivery,
            Err(error) => return undecodable(fields, error),
        };
        let Redelivery {
            fields,
            history,
            starts_over,
        } = redelivery;
        let decoded = decoder.decode_retry(topic, history.origin, &fields);
        (fields, history, starts_over, decoded)
    };
    let Decoded {
        mut envelope,
        is_foreign,
    } = decoded;
    if let Ok(envelope) = &mut envelope
        && starts_over
    {
        envelope.reset_attempts();
    }
    let entry = Entry {
        id,
        fields,
        history,
        is_foreign,
        is_redelivery,
    };
    (entry, envelope)
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::{Codec, EntryId, FailedAttempt, Timestamp};
    use crate::store::Attempts;
    use crate::wire::{Limits, encode_entry};

    pub(crate) fn envelope(failed: u32) -> Envelope {
        let mut envelope = Envelope::new("order.placed", &7)
            .unwrap()
            .with_tenant("ann");
        envelope.failed_attempts = failed;
        envelope
    }

    pub(crate) fn fields(envelope: &Envelope) -> Fields {
        let (name, bytes) = encode_entry(envelope, Codec::Json, Limits::default()).unwrap();
        vec![(Bytes::from_static(name.as_bytes()), bytes.into())]
    }

    pub(crate) fn fetched(lane: Lane, fields: Fields) -> Fetched {
        let id = EntryId::new(1_762_957_200_123, 1);
        Fetched {
            source: 0,
            receipt: DeliveryId { lane, id },
            fields,
            attempts: Attempts::default(),
            kind: Kind::Fresh,
        }
    }

    pub(crate) fn history() -> DeliveryHistory {
        let mut history = DeliveryHistory::from(EntryId::new(1_762_957_100_000, 0));
        history.record(FailedAttempt {
            number: 1,
            at: Timestamp::from_millis(1_762_957_150_000).unwrap(),
            consumer: "before".to_owned(),
            error: "disk full".to_owned(),
        });
        history
    }

    fn redelivery(starts_over: bool) -> Fields {
        let redelivery = Redelivery {
            fields: fields(&envelope(3)),
            history: history(),
            starts_over,
        };
        vec![(Bytes::from_static(b"parcel"), redelivery.encode())]
    }

    fn decode(fetched: Fetched) -> (Entry, Result<Envelope, Undecodable>) {
        super::decode(&Topic::new("orders").unwrap(), fetched, &Decoder::default())
    }

    #[test]
    fn a_log_entry_begins_its_history() {
        let sent = envelope(0);
        let (entry, envelope) = decode(fetched(Lane::Log, fields(&sent)));
        assert_eq!(envelope.unwrap().id(), sent.id());
        assert_eq!(entry.history, DeliveryHistory::from(entry.id.id));
        assert_eq!(entry.fields, fields(&sent));
    }

    #[test]
    fn a_retry_brings_its_history_and_attempts_and_a_redriven_one_starts_over() {
        let (entry, retried) = decode(fetched(Lane::Redelivery, redelivery(false)));
        assert_eq!(retried.unwrap().failed_attempts(), 3);
        assert_eq!(entry.history, history());
        let (entry, redriven) = decode(fetched(Lane::Redelivery, redelivery(true)));
        assert_eq!(redriven.unwrap().failed_attempts(), 0);
        assert_eq!(entry.history, history());
    }

    #[test]
    fn an_undecodable_entry_keeps_its_fields_in_both_lanes() {
        let broken: Fields = vec![(Bytes::from_static(b"json"), Bytes::from_static(b"{"))];
        for lane in [Lane::Log, Lane::Redelivery] {
            let (entry, envelope) = decode(fetched(lane, broken.clone()));
            assert!(envelope.is_err());
            assert_eq!(entry.fields, broken);
            assert_eq!(entry.history.origin, entry.id.id);
        }
    }
}
