//! Publishes at a level of durability, over redirects.

use std::mem;
use std::sync::PoisonError;

use bytes::Bytes;

use super::Net;
use super::commands::{self, Failure, Replies};
use super::error::{self, is_redirect};
use super::numbers::Numbers;
use super::redirect::{Undone, undone};
use super::routing::attempts::Attempts;
use super::routing::pause::PUBLISH_LIMIT;
use crate::adapters::redis::resp::{Scan, reply};
use crate::adapters::redis::scripts::{self, Call};
use crate::domain::{Durability, Error, ErrorKind};

impl Net {
    /// Sends packed commands, and waits until the level is reached. Repeats those that were certainly
    /// not done. The second result says whether all that were done are durable.
    ///
    /// The order of two calls is kept only where the caller waits between them. Commands with numbers are
    /// also repeated when their outcome is unknown: the wait behind the repeat covers them too, because a
    /// server writes down that it has seen a number again.
    pub(in crate::adapters::redis) async fn publish_durably(
        &self,
        operation: &'static str,
        key: &str,
        sent: (Vec<u8>, usize),
        level: Durability,
        numbers: Option<Numbers>,
    ) -> Result<(Replies, Result<(), Error>), Error> {
        let mut unsure = None;
        let numbers = numbers.as_ref();
        let note_late = |may: bool| numbers.iter().for_each(|numbers| numbers.note_late(may));
        // A caller may give up while the messages still wait to be sent.
        note_late(true);
        let sending = self.send_durably(operation, key, sent, level, (numbers, &mut unsure));
        let answered = sending.await;
        let Some(Unsure { from, earlier }) = unsure else {
            note_late(answered.is_err());
            return answered;
        };
        match answered {
            Ok((mut replies, durable)) => {
                let open = replies.split_off(from);
                replies.extend(commands::still_unsure(open, &earlier));
                Ok((replies, durable))
            }
            Err(later) => Err(error::sent(
                operation,
                commands::unsure_again(&earlier, &later),
            )),
        }
    }

    async fn send_durably(
        &self,
        operation: &'static str,
        key: &str,
        (mut packed, mut count): (Vec<u8>, usize),
        level: Durability,
        (numbers, unsure): (Option<&Numbers>, &mut Option<Unsure>),
    ) -> Result<(Replies, Result<(), Error>), Error> {
        let nodes = &*self.nodes;
        nodes.ready(operation).await?;
        let mut attempts = Attempts::new(nodes.slot(key), PUBLISH_LIMIT);
        let (mut done, mut durable) = (Replies::new(), Ok(()));
        loop {
            if unsure.is_some() && !numbers.is_some_and(Numbers::are_remembered) {
                // The machine may have slept, and the server forgotten the numbers.
                let text = "TRYAGAIN it is too late to send the message again";
                done.extend((0..count).map(|_| Err(error::server_error(text))));
                return Ok((done, durable));
            }
            let (node, asking) = attempts.node(nodes);
            let (sent, step) = if asking {
                (commands::asking_each(&packed), 2)
            } else {
                (packed.clone(), 1)
            };
            let answer = node.durable.send(level, sent, step * count).await;
            let (reason, mut replies) = match answer {
                Ok((replies, kept)) => {
                    let replies: Replies =
                        replies.into_iter().skip(step - 1).step_by(step).collect();
                    let of = |one: &Result<_, _>| one.as_ref().err().and_then(undone);
                    let first = replies.iter().position(|one| of(one).is_some());
                    if waited_for_any(&replies) {
                        durable = durable.and(kept.map_err(|cause| not_durable(operation, cause)));
                    }
                    match first {
                        // A younger one was done: a repeat of the older one would break the order.
                        Some(first) if replies[first..].iter().all(|one| of(one).is_some()) => {
                            (of(&replies[first]), replies)
                        }
                        _ => (None, replies),
                    }
                }
                Err(Failure::NotSent(_, cause)) if nodes.may_change() && cause.is_passing() => {
                    (Some(Undone::Unreachable), Replies::new())
                }
                Err(Failure::NotSent(_, cause)) if unsure.is_some() && cause.is_passing() => {
                    (Some(Undone::NotReady), Replies::new())
                }
                Err(Failure::Unknown(cause)) if numbers.is_some_and(Numbers::are_remembered) => {
                    unsure.get_or_insert(Unsure {
                        from: done.len(),
                        earlier: cause,
                    });
                    (Some(Undone::NotReady), Replies::new())
                }
                Err(failure) if done.is_empty() => return Err(failure.into_error(operation)),
                // What was done stays done, and the rest fails by itself.
                Err(failure) => {
                    let text = match failure {
                        Failure::NotSent(..) => "TRYAGAIN no server took the command in time",
                        Failure::Unknown(cause) => {
                            done.extend((0..count).map(|_| Err(cause.clone())));
                            return Ok((done, durable));
                        }
                    };
                    done.extend((0..count).map(|_| Err(error::server_error(text))));
                    return Ok((done, durable));
                }
            };
            let Some(reason) = reason else {
                done.append(&mut replies);
                return Ok((done, durable));
            };
            let undone_from = replies.iter().position(|one| {
                let cause = one.as_ref().err();
                cause.and_then(undone).is_some()
            });
            let rest = replies.split_off(undone_from.unwrap_or(0));
            cut(&mut packed, replies.len());
            count -= replies.len();
            done.append(&mut replies);
            if !attempts.prepare(nodes, &node, &reason).await {
                nodes.refresh();
                if rest.is_empty() && done.is_empty() {
                    let message = "no server took the message in time";
                    return Err(Error::new(ErrorKind::Unavailable, operation, message));
                }
                let in_vain = |cause| match nodes.is_clustered() && is_redirect(&cause) {
                    true => error::in_vain(cause),
                    false => cause,
                };
                let missing = count - rest.len();
                done.extend(rest.into_iter().map(|one| one.map_err(in_vain)));
                let text = "TRYAGAIN no server took the command in time";
                done.extend((0..missing).map(|_| Err(error::server_error(text))));
                return Ok((done, durable));
            }
        }
    }

    /// Calls a script as [`publish_durably`](Self::publish_durably) sends commands, and loads it first
    /// where the server does not know it.
    pub(in crate::adapters::redis) async fn call_durably(
        &self,
        operation: &'static str,
        call: &Call,
        level: Durability,
    ) -> Result<(Bytes, Result<(), Error>), Error> {
        let ask = async || {
            let (key, packed) = (call.first_key(), call.packed());
            let sent = self.publish_durably(operation, key, (packed, 1), level, None);
            let (mut replies, durable) = sent.await?;
            let missing = || Err(reply::unexpected("no reply"));
            Ok::<_, Error>((replies.pop().unwrap_or_else(missing), durable))
        };
        let (mut said, mut durable) = ask().await?;
        if said.as_ref().is_err_and(scripts::is_unknown) {
            self.load(operation, call).await?;
            (said, durable) = ask().await?;
        }
        let said = said.map_err(|e| error::sent(operation, e))?;
        Ok((said, durable))
    }

    /// Whether every server can give a level. The error says why not.
    pub(in crate::adapters::redis) async fn can_keep(
        &self,
        operation: &'static str,
        level: Durability,
    ) -> Result<(), Error> {
        let levels = || self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if level == Durability::Accepted || levels().contains(&level) {
            return Ok(());
        }
        level.check()?;
        for primary in self.primaries(operation).await? {
            let answer = primary.node.durable.try_level(level).await;
            let mut replies = answer.map_err(|failure| failure.into_error(operation))?;
            let missing = || Err(reply::unexpected("no reply"));
            let said = replies.pop().unwrap_or_else(missing);
            let refused = |kind, text: String| {
                Error::new(kind, operation, format!("level {level}: {text}")).on(primary.address())
            };
            let reply = match said.and_then(|reply| redis::parse_redis_value(&reply)) {
                Ok(reply) => reply,
                Err(cause) => {
                    let failed = error::sent(operation, cause);
                    let text = "the server cannot give it";
                    let kind = match failed.kind() {
                        ErrorKind::Refused => ErrorKind::Unsupported,
                        kind => kind,
                    };
                    return Err(refused(kind, text.to_owned()).because(failed));
                }
            };
            if let (Durability::Replicated { replicas, .. }, redis::Value::Int(connected)) =
                (level, reply)
                && connected < i64::from(replicas)
            {
                let text = format!("the server has {connected} connected replicas");
                return Err(refused(ErrorKind::Unavailable, text));
            }
        }
        levels().insert(level);
        Ok(())
    }
}

/// Which commands an attempt may have done, and why that is unknown.
struct Unsure {
    /// The number of commands before them.
    from: usize,
    earlier: redis::RedisError,
}

/// Whether the wait behind these replies counts: any command was done that it may not have covered.
fn waited_for_any(replies: &[Result<Bytes, redis::RedisError>]) -> bool {
    replies.iter().any(Result::is_ok)
}

/// Removes the first commands.
fn cut(packed: &mut Vec<u8>, count: usize) {
    let rest = mem::take(packed);
    let mut at = 0;
    for _ in 0..count {
        // The adapter has packed the commands itself, so each is complete.
        if let Ok(Some(length)) = Scan::new().advance(&rest[at..]) {
            at += length;
        }
    }
    *packed = rest[at..].to_vec();
}

fn not_durable(operation: &'static str, cause: redis::RedisError) -> Error {
    let text = "the server has the message, but it is not as durable as asked";
    let error = Error::new(ErrorKind::OutcomeUnknown, operation, text);
    match cause.detail() {
        Some(detail) if cause.kind() == redis::ErrorKind::Client => {
            let text = format!("{text}: {detail}");
            Error::new(ErrorKind::OutcomeUnknown, operation, text)
        }
        _ => error.because(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_where_any_command_before_it_was_done() {
        let done = || Ok(Bytes::from_static(b"$3\r\n1-1\r\n"));
        let undone = || Err(error::server_error("NOREPLICAS Not enough good replicas"));
        let refused = || Err(error::server_error("OOM command not allowed"));
        assert!(waited_for_any(&[done(), undone()]));
        assert!(waited_for_any(&[undone(), done()]));
        assert!(waited_for_any(&[refused(), done(), undone()]));
        assert!(!waited_for_any(&[undone(), undone()]));
        assert!(!waited_for_any(&[refused(), undone()]));
    }
}
