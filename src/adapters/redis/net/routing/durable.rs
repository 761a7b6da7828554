//! Publishes that wait until they are durable.
//!
//! A server counts for WAIT and WAITAOF what the same connection has written before, and answers nothing
//! else on that connection meanwhile. So these publishes have a link of their own for each node, and all
//! that come while one wait is under way share the next one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::adapters::redis::net::commands::{Answer, Failure, Replies};
use crate::adapters::redis::net::connections::link::Link;
use crate::adapters::redis::resp::pack;
use crate::domain::Durability;

/// How many bytes of commands share a wait. A larger publish has one of its own.
const SHARED: usize = 1024 * 1024;
/// How long to wait for a sync of the append-only file, in milliseconds. A server that syncs every second
/// does so within two.
const SYNC_WITHIN: &str = "4000";

/// How long replicas may take at least to show that they are there.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// The replies to the commands of a publish, and whether they are durable.
pub(in crate::adapters::redis::net) type Kept = (Replies, Result<(), RedisError>);

#[derive(Debug)]
struct Pending {
    level: Durability,
    packed: Vec<u8>,
    count: usize,
    caller: oneshot::Sender<Result<Kept, Failure>>,
}

/// The publishes of one node that wait until they are durable.
#[derive(Clone, Debug)]
pub(in crate::adapters::redis::net) struct Durable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    pending: VecDeque<Pending>,
    task: Option<JoinHandle<()>>,
}

impl Durable {
    pub(in crate::adapters::redis::net) fn new(link: Link) -> Self {
        Self {
            inner: Arc::new(Inner {
                link,
                queue: Mutex::default(),
            }),
        }
    }

    /// Sends packed commands, and waits until they are durable.
    pub(in crate::adapters::redis::net) async fn send(
        &self,
        level: Durability,
        packed: Vec<u8>,
        count: usize,
    ) -> Result<Kept, Failure> {
        let (caller, answer) = oneshot::channel();
        let pending = Pending {
            level,
            packed,
            count,
            caller,
        };
        {
            let mut queue = self.inner.queue();
            queue.pending.push_back(pending);
            if queue.task.as_ref().is_none_or(JoinHandle::is_finished) {
                // Those of a runtime that has ended were never sent, or nobody waits for them.
                queue.task = Some(tokio::spawn(Arc::clone(&self.inner).work_off()));
            }
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Failure::of_ended_task()))
    }

    /// Waits on the link alone, for a server that may not be able to.
    pub(in crate::adapters::redis::net) async fn try_level(&self, level: Durability) -> Answer {
        let mut packed = Vec::new();
        match level {
            // Replicas say only once a second by themselves what they have, so this waits as well.
            Durability::Replicated { replicas, timeout } => {
                let timeout = timeout.max(SHOWN_WITHIN);
                pack_wait(&mut packed, Durability::replicated(replicas, timeout));
            }
            _ => pack(&mut packed, &[b"WAITAOF", b"1", b"0", b"1"]),
        }
        self.inner.link.send(packed, 1).await
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work_off(self: Arc<Self>) {
        loop {
            let Some(batch) = self.next() else {
                return;
            };
            self.exchange(batch).await;
        }
    }

    /// The publishes of the next wait, all of one level. `None` ends the task.
    fn next(&self) -> Option<Vec<Pending>> {
        let mut queue = self.queue();
        let Some(level) = queue.pending.front().map(|first| first.level) else {
            queue.task = None;
            return None;
        };
        let (mut batch, mut size) = (Vec::new(), 0);
        while let Some(first) = queue.pending.front() {
            size += first.packed.len();
            if first.level != level || (size > SHARED && !batch.is_empty()) {
                break;
            }
            // Nothing was sent of one whose caller has given up.
            batch.extend(
                queue
                    .pending
                    .pop_front()
                    .filter(|one| !one.caller.is_closed()),
            );
        }
        Some(batch)
    }

    async fn exchange(&self, mut batch: Vec<Pending>) {
        let Some(level) = batch.first().map(|one| one.level) else {
            return;
        };
        let mut packed = Vec::with_capacity(batch.iter().map(|one| one.packed.len()).sum());
        for one in &batch {
            packed.extend_from_slice(&one.packed);
        }
        pack_wait(&mut packed, level);
        let count = batch.iter().map(|one| one.count).sum::<usize>() + 1;
        // What was not written yet when all callers have given up is not written later.
        let answer = tokio::select! {
            biased;
            answer = self.link.send(packed, count) => answer,
            () = all_closed(&mut batch) => return,
        };
        match answer {
            Ok(mut replies) => {
                let waited = replies.pop();
                let mut replies = replies.into_iter();
                for one in batch {
                    let own = replies.by_ref().take(one.count).collect();
                    let kept = waited.as_ref().map(|waited| judge(level, waited));
                    let kept =
                        kept.unwrap_or_else(|| Err(unmet("the server did not say".to_owned())));
                    let _ = one.caller.send(Ok((own, kept)));
                }
            }
            Err(Failure::NotSent(address, cause)) => {
                for one in batch {
                    let failure = Failure::NotSent(Arc::clone(&address), cause.clone());
                    let _ = one.caller.send(Err(failure));
                }
            }
            Err(Failure::Unknown(cause)) => {
                for one in batch {
                    let _ = one.caller.send(Err(Failure::Unknown(cause.clone())));
                }
            }
        }
    }
}

/// Waits until all callers have given up.
async fn all_closed(batch: &mut [Pending]) {
    for one in batch {
        one.caller.closed().await;
    }
}

fn pack_wait(packed: &mut Vec<u8>, level: Durability) {
    match level {
        Durability::Replicated { replicas, timeout } => {
            let (replicas, timeout) = (replicas.to_string(), timeout.as_millis().to_string());
            let parts: [&[u8]; 3] = [b"WAIT", replicas.as_bytes(), timeout.as_bytes()];
            pack(packed, &parts);
        }
        _ => pack(packed, &[b"WAITAOF", b"1", b"0", SYNC_WITHIN.as_bytes()]),
    }
}

/// Whether the answer to a wait says that everything before it is durable.
fn judge(level: Durability, waited: &Result<Bytes, RedisError>) -> Result<(), RedisError> {
    let reply = match waited {
        Ok(reply) => redis::parse_redis_value(reply)?,
        Err(cause) => return Err(cause.clone()),
    };
    match (level, reply) {
        (Durability::Replicated { replicas, timeout }, Value::Int(count)) => {
            if count >= i64::from(replicas) {
                return Ok(());
            }
            Err(unmet(format!(
                "{count} of {replicas} replicas had it after {timeout:?}"
            )))
        }
        (Durability::Fsynced, Value::Array(counts)) => match counts.first() {
            Some(Value::Int(1..)) => Ok(()),
            _ => Err(unmet(format!(
                "the server had not synced it after {SYNC_WITHIN} ms"
            ))),
        },
        _ => Err(unmet("the server's answer could not be read".to_owned())),
    }
}

fn unmet(text: String) -> RedisError {
    (redis::ErrorKind::Client, "not durable", text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_reaches_the_level_is_durable() {
        let judged = |level, reply: &'static [u8]| judge(level, &Ok(Bytes::from_static(reply)));
        let two = Durability::replicated(2, Duration::from_millis(50));
        assert!(judged(two, b":2\r\n").is_ok() && judged(two, b":3\r\n").is_ok());
        let error = judged(two, b":1\r\n").unwrap_err();
        assert!(error.to_string().contains("1 of 2 replicas"), "{error}");
        assert!(judged(two, b"+OK\r\n").is_err());
        assert!(judged(Durability::Fsynced, b"*2\r\n:1\r\n:0\r\n").is_ok());
        assert!(judged(Durability::Fsynced, b"*2\r\n:0\r\n:3\r\n").is_err());
        assert!(judged(Durability::Fsynced, b":1\r\n").is_err());
    }

    #[test]
    fn a_wait_names_the_replicas_and_the_time() {
        let packed = |level| {
            let mut packed = Vec::new();
            pack_wait(&mut packed, level);
            String::from_utf8(packed).unwrap()
        };
        let wait = packed(Durability::replicated(2, Duration::from_millis(50)));
        assert_eq!(wait, "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$2\r\n50\r\n");
        assert!(packed(Durability::Fsynced).contains("WAITAOF\r\n$1\r\n1\r\n$1\r\n0\r\n"));
    }
}
