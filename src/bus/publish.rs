//! Publishing: validate → encode → admit → append.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use metrics::counter;
use tracing::Instrument as _;

use super::StoreBus;
use crate::api::{PublishOptions, Published};
use crate::domain::{Envelope, Error, ErrorKind, Topic};
use crate::store::Identified;
use crate::wire::encode_entry;

impl StoreBus {
    pub(super) async fn publish_one(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        let mut results = self
            .publish_many(topic, std::slice::from_ref(envelope), options)
            .await;
        // One message in, one result out.
        results.pop().unwrap_or_else(|| Err(closed(topic)))
    }

    pub(super) async fn publish_many(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        let span = tracing::debug_span!("publish", %topic, messages = envelopes.len());
        let results = self
            .append(topic, envelopes, options)
            .instrument(span)
            .await;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let kind = error.kind().as_str();
            counter!("redstart_publish_failed_total", "topic" => topic.to_string(), "kind" => kind)
                .increment(1);
        }
        results
    }

    async fn append(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        if self.closed.load(Ordering::Acquire) {
            return envelopes.iter().map(|_| Err(closed(topic))).collect();
        }
        let window = match options.window(self.deduplication) {
            Ok(window) => window,
            Err(error) => {
                let error = error.on(topic.as_str());
                return envelopes.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let mut results: Vec<Option<Result<Published, Error>>> =
            Vec::with_capacity(envelopes.len());
        let mut entries = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            match encode_entry(envelope, self.codec, self.limits) {
                Ok((name, bytes)) => {
                    entries.push((name, Bytes::from(bytes)));
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let (admitted, refusal) = self.backlog.admit(topic, entries.len() as u64).await;
        entries.truncate(usize::try_from(admitted.count).unwrap_or(usize::MAX));
        let (mut plain, mut once) = (Vec::new(), Vec::new());
        match window {
            _ if entries.is_empty() => {}
            None => plain = self.store.append(topic, entries).await,
            Some(window) => {
                let encoded = envelopes
                    .iter()
                    .zip(&results)
                    .filter(|(_, failed)| failed.is_none());
                let entries = encoded.zip(entries).map(|((envelope, _), (name, value))| {
                    let id = options.identity(envelope);
                    Identified { id, name, value }
                });
                once = self.append_once(topic, window, entries.collect()).await;
            }
        }
        let fresh = plain.iter().filter(|result| result.is_ok()).count()
            + once.iter().flatten().filter(|done| !done.duplicate).count();
        admitted.count_published(fresh as u64);
        drop(admitted);
        let plain = plain.into_iter().map(|done| done.map(Published::new));
        let mut appended = plain.chain(once);
        let refusal = refusal.err().unwrap_or_else(|| closed(topic));
        results
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| match appended.next() {
                    Some(fate) => fate,
                    None => Err(refusal.clone()),
                })
            })
            .collect()
    }
}

pub(super) fn closed(topic: &Topic) -> Error {
    let rule = "the container was shut down";
    Error::new(ErrorKind::Closed, "bus", rule).on(topic.as_str())
}
