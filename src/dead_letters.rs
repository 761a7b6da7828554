//! Dead letters, on the backend port.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::{Backend, Fields, MAX_BATCH};
use crate::codec::parcel::{Parcel, decode_record};
use crate::codec::{Limits, decode_entry, encode_entry};
use crate::domain::{DeadLetter, EntryId, Envelope, Error, ErrorKind, Group, Topic};
use crate::ports::{BoxFuture, DeadLetters, Redriven};

/// The dead letters of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Graveyard {
    backend: Arc<dyn Backend>,
}

impl Graveyard {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    async fn find(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<DeadLetter>, Error> {
        let found = self.backend.dead_by_id(topic, group, ids).await?;
        decode(topic, group, found)
    }
}

fn decode(
    topic: &Topic,
    group: &Group,
    records: Vec<(EntryId, crate::backend::Record)>,
) -> Result<Vec<DeadLetter>, Error> {
    records
        .into_iter()
        .map(|(id, record)| {
            decode_record(topic, group, id, record).map_err(|flaw| {
                let rule = "the record cannot be decoded";
                Error::new(ErrorKind::Decode, "dead letter", rule)
                    .on(format!("{topic}/{group} {id}"))
                    .because(flaw)
            })
        })
        .collect()
}

impl DeadLetter {
    /// The message as it died.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for one that was buried because it cannot be decoded.
    pub fn envelope(&self) -> Result<Envelope, Error> {
        let pairs = self
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let limits = Limits::default().without_bound();
        decode_entry(&self.topic, self.trail.origin, pairs, limits).map_err(|flaw| {
            Error::new(ErrorKind::Decode, "dead letter", "is undecodable")
                .on(format!("{}/{} {}", self.topic, self.group, self.id))
                .because(flaw)
        })
    }

    /// What the group gets back: the message with its attempts set to none. What cannot be
    /// decoded goes back as it is.
    fn parcel(mut self) -> Bytes {
        self.trail.redriven = self.trail.redriven.saturating_add(1);
        let fields = match self.envelope().and_then(fresh) {
            Ok(fields) => fields,
            Err(_) => self.fields,
        };
        let parcel = Parcel {
            fields,
            trail: self.trail,
        };
        parcel.encode()
    }
}

fn fresh(mut envelope: Envelope) -> Result<Fields, Error> {
    envelope.attempts = 0;
    envelope.last_error = None;
    let codec = envelope.payload.codec();
    let (name, bytes) = encode_entry(&envelope, codec, Limits::default().without_bound())?;
    Ok(vec![(
        Bytes::from_static(name.as_bytes()),
        Bytes::from(bytes),
    )])
}

/// Sorts ids by what became of them.
fn account(ids: &[EntryId], taken: impl Fn(EntryId) -> bool) -> Redriven {
    let (done, missing) = ids.iter().partition(|id| taken(**id));
    Redriven { done, missing }
}

impl DeadLetters for Graveyard {
    fn list<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, Error>> {
        Box::pin(async move {
            let records = self.backend.dead(topic, group, after, max).await?;
            decode(topic, group, records)
        })
    }

    fn get<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        id: EntryId,
    ) -> BoxFuture<'a, Result<Option<DeadLetter>, Error>> {
        Box::pin(async move { Ok(self.find(topic, group, &[id]).await?.pop()) })
    }

    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<BTreeMap<String, u64>, Error>> {
        Box::pin(async move {
            let counts = self.backend.dead_counts(topic, group).await?;
            Ok(counts.into_iter().collect())
        })
    }

    fn redrive<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Redriven, Error>> {
        Box::pin(async move {
            let mut moved = std::collections::HashSet::new();
            for ids in ids.chunks(MAX_BATCH) {
                let found = self.find(topic, group, ids).await?;
                let parcels: Vec<(EntryId, Bytes)> = found
                    .into_iter()
                    .map(|letter| (letter.id, letter.parcel()))
                    .collect();
                if parcels.is_empty() {
                    continue;
                }
                let taken = self.backend.redrive(topic, group, &parcels).await?;
                let taken = parcels.iter().zip(taken).filter(|(_, taken)| *taken);
                moved.extend(taken.map(|((id, _), _)| *id));
            }
            metrics::counter!("redstart_redriven_total", "topic" => topic.to_string(), "group" => group.to_string())
                .increment(moved.len() as u64);
            Ok(account(ids, |id| moved.contains(&id)))
        })
    }

    fn purge<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Redriven, Error>> {
        Box::pin(async move {
            let taken = self.backend.purge(topic, group, ids).await?;
            let mut result = Redriven::default();
            for (id, taken) in ids.iter().zip(taken) {
                let list = if taken {
                    &mut result.done
                } else {
                    &mut result.missing
                };
                list.push(*id);
            }
            metrics::counter!("redstart_purged_total", "topic" => topic.to_string(), "group" => group.to_string())
                .increment(result.done.len() as u64);
            Ok(result)
        })
    }
}
