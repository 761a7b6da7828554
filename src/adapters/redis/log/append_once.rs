//! Publishing once: entries and the ids of their messages, by one script.

use std::time::Duration;

use bytes::Bytes;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{error, refusal_of};
use crate::adapters::redis::resp::{Broken, Head, Walk, reply};
use crate::adapters::redis::scripts::{self, Call};
use crate::domain::{Error, ErrorKind, whole_millis};
use crate::store::batch::batches;
use crate::store::{Appended, NewEntry, Partition};

const OPERATION: &str = "publish";

impl RedisAdapter {
    pub(super) async fn append_identified(
        &self,
        at: &Partition,
        window: Duration,
        entries: &[NewEntry],
    ) -> Vec<Result<Appended, Error>> {
        let mut results = Vec::with_capacity(entries.len());
        for batch in batches(entries, |entry| entry.value.len()) {
            let call = self.append_once_call(at, window, batch);
            let answered = match self.net.publish_by(OPERATION, &call).await {
                Ok(reply) => appended(reply, batch.len()),
                Err(failure) => Err(failure),
            };
            match answered {
                Ok(answered) => results.extend(answered),
                Err(failure) => results.extend(alike(&failure, batch.len())),
            }
            if results.last().is_some_and(Result::is_err) {
                let rule = "a message before it in the same call failed; it was not sent";
                let skipped = Error::new(ErrorKind::Unavailable, OPERATION, rule);
                results.extend(alike(&skipped, entries.len() - results.len()));
                break;
            }
        }
        results
            .into_iter()
            .map(|result| result.map_err(|e| e.on(at.to_string())))
            .collect()
    }
}

impl RedisAdapter {
    /// The script's call for a batch of messages.
    pub(super) fn append_once_call(
        &self,
        at: &Partition,
        window: Duration,
        batch: &[NewEntry],
    ) -> Call {
        let [ids, before] = self.keys.ids(at);
        let mut call = scripts::append_once()
            .key(self.keys.log(at))
            .key(ids)
            .key(before)
            .arg(whole_millis(window));
        for entry in batch {
            call.push(&entry.id.as_bytes()[..]);
            call.push(entry.name);
            call.push(&entry.value[..]);
        }
        call
    }
}

/// The same failure for several messages.
pub(super) fn alike<T>(failure: &Error, count: usize) -> Vec<Result<T, Error>> {
    (0..count).map(|_| Err(failure.clone())).collect()
}

/// What the script answered for each entry.
pub(super) fn appended(reply: Bytes, count: usize) -> Result<Vec<Result<Appended, Error>>, Error> {
    let unexpected = || error::sent(OPERATION, reply::unexpected("append_once.lua"));
    let id = |payload: &Bytes| reply::parse_id(payload).ok_or_else(unexpected);
    let broken = |e: Broken| error::sent(OPERATION, e.into());
    let mut walk = Walk::new(reply);
    if walk.array().map_err(broken)? != count {
        return Err(unexpected());
    }
    (0..count)
        .map(|_| {
            Ok(match walk.next().map_err(broken)? {
                Head::Bulk(fresh) => Ok(Appended {
                    id: id(&fresh)?,
                    duplicate: false,
                }),
                Head::Array(1) => Ok(Appended {
                    id: id(&walk.payload().map_err(broken)?)?,
                    duplicate: true,
                }),
                Head::Error(text) => Err(error::sent(OPERATION, refusal_of(&text))),
                _ => return Err(unexpected()),
            })
        })
        .collect()
}
