//! Appending at a level of durability.

use std::time::Duration;

use super::append_once::{alike, appended as appended_once};
use super::{appended, xadd_all};
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::reply;
use crate::adapters::redis::scripts;
use crate::domain::{Durability, Error, ErrorKind};
use crate::store::batch::batches;
use crate::store::{Appended, NewEntry, Partition};

const OPERATION: &str = "publish";

/// The outcome of each message of a batch.
type Outcomes = Vec<Result<Appended, Error>>;

impl RedisAdapter {
    pub(super) async fn append_at_level(
        &self,
        at: &Partition,
        level: Durability,
        window: Option<Duration>,
        entries: &[NewEntry],
    ) -> Result<Outcomes, Error> {
        if level == Durability::Accepted {
            return Ok(match window {
                None => self.append_entries(at, entries).await,
                Some(window) => self.append_identified(at, window, entries).await,
            });
        }
        // Before anything is appended that the server then cannot keep.
        self.net.can_keep(OPERATION, level).await?;
        let mut outcomes = Outcomes::with_capacity(entries.len());
        for batch in batches(entries, |entry| entry.value.len()) {
            let done = match window {
                None => self.append_batch(at, level, batch).await,
                Some(window) => self.append_batch_once(at, level, window, batch).await,
            };
            let failed = done.is_err();
            outcomes.extend(done.unwrap_or_else(|failure| alike(&failure, batch.len())));
            if failed && window.is_some() {
                let rule = "a message before it in the same call failed; it was not sent";
                let skipped = Error::new(ErrorKind::Unavailable, OPERATION, rule);
                outcomes.extend(alike(&skipped, entries.len() - outcomes.len()));
                break;
            }
        }
        let named = outcomes
            .into_iter()
            .map(|one| one.map_err(|e| e.on(at.to_string())));
        Ok(named.collect())
    }

    async fn append_batch(
        &self,
        at: &Partition,
        level: Durability,
        batch: &[NewEntry],
    ) -> Result<Outcomes, Error> {
        let log = self.keys.log(at);
        let mut packed = Vec::new();
        let numbers = self.net.numbers(&log, batch.len());
        xadd_all(&mut packed, &log, batch, numbers.as_ref());
        let sent = (packed, batch.len());
        let (replies, durable) = self
            .net
            .publish_durably(OPERATION, &log, sent, level, numbers)
            .await?;
        Ok(judged(
            replies.into_iter().map(appended).collect(),
            &durable,
        ))
    }

    async fn append_batch_once(
        &self,
        at: &Partition,
        level: Durability,
        window: Duration,
        batch: &[NewEntry],
    ) -> Result<Outcomes, Error> {
        let call = self.append_once_call(at, window, batch);
        let (said, mut durable) = self.net.call_durably(OPERATION, &call, level).await?;
        let outcomes = appended_once(said, batch.len())?;
        if outcomes.iter().flatten().any(|done| done.duplicate) {
            durable = self.refresh_ids(at, level).await;
        }
        Ok(judged(outcomes, &durable))
    }

    /// Waits until a write is durable that comes after all entries which the ids know.
    async fn refresh_ids(&self, at: &Partition, level: Durability) -> Result<(), Error> {
        let [ids, before] = self.keys.ids(at);
        let call = scripts::refresh_ids().key(ids).key(before);
        let answered = self.net.call_durably(OPERATION, &call, level).await;
        let (said, durable) = answered.map_err(|cause| unsure().because(cause))?;
        let written = redis::parse_redis_value(&said).and_then(|said| reply::count(&said));
        match written.map_err(|e| error::sent(OPERATION, e))? {
            0 => Err(unsure()),
            _ => durable,
        }
    }
}

/// The error of a message that an earlier call has appended.
fn unsure() -> Error {
    let text =
        "the message is in the topic since an earlier call, and may be less durable than asked";
    Error::new(ErrorKind::OutcomeUnknown, OPERATION, text)
}

/// Makes a message that was appended and is not durable an unknown one.
fn judged(outcomes: Outcomes, durable: &Result<(), Error>) -> Outcomes {
    let judge = |one: Result<Appended, Error>| {
        let done = one?;
        durable.clone().map(|()| done)
    };
    outcomes.into_iter().map(judge).collect()
}
