//! A publish that is repeated, and what becomes of its answers.

use std::sync::Arc;

use redis::RedisError;
use tokio::time::Instant;

use super::node::Node;
use super::nodes::Nodes;
use super::pause::PUBLISH_LIMIT;
use crate::adapters::redis::net::commands::{
    Answer, Commands, Failure, Replies, asking_each, still_unsure, unsure_again,
};
use crate::adapters::redis::net::error;
use crate::adapters::redis::net::redirect::{Undone, undone};
use crate::adapters::redis::resp::Scan;

/// A publish that is repeated.
#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) commands: Commands,
    /// The answers to the commands that were done. The others are still in `commands`.
    done: Replies,
    pub(super) deadline: Instant,
    /// The last answer to the others.
    last: Option<Answer>,
    /// Why the outcome of an earlier attempt is unknown. Another server may have done it.
    pub(super) unsure: Option<RedisError>,
    /// The node that answers the next attempt only.
    pub(super) asked: Option<Arc<Node>>,
}

impl Repeated {
    pub(super) fn new(commands: Commands, since: Instant) -> Self {
        Self {
            commands,
            done: Replies::new(),
            deadline: since + PUBLISH_LIMIT,
            last: None,
            unsure: None,
            asked: None,
        }
    }

    /// Takes an answer. Returns the publish and the reason if a repeat may help; else answers its
    /// caller.
    pub(super) fn take(mut self, answer: Answer, nodes: &Nodes) -> Option<(Self, Undone)> {
        let reason = match &answer {
            Err(Failure::NotSent(..)) if nodes.repeats(&answer) => Undone::Unreachable,
            Err(Failure::NotSent(_, cause)) if self.unsure.is_some() && cause.is_passing() => {
                Undone::Unreachable
            }
            Err(Failure::Unknown(cause)) if self.commands.may_repeat() => {
                self.unsure.get_or_insert_with(|| cause.clone());
                Undone::Unreachable
            }
            Err(_) => {
                self.finish_with(answer);
                return None;
            }
            Ok(replies) => {
                let of = |reply: &Result<_, RedisError>| reply.as_ref().err().and_then(undone);
                let first = replies.iter().position(|reply| of(reply).is_some());
                let reason = first.and_then(|first| of(&replies[first]));
                let (Some(first), Some(reason)) = (first, reason) else {
                    self.finish_with(answer);
                    return None;
                };
                // A younger command was done: repeating the older one would break the order.
                let in_order = replies[first..].iter().all(|reply| of(reply).is_some());
                if !in_order || !nodes.repeats(&answer) {
                    self.finish_with(answer);
                    return None;
                }
                self.cut(first);
                reason
            }
        };
        let rest = match answer {
            Ok(mut replies) => {
                let rest = replies.split_off(replies.len() - self.commands.count);
                self.done.extend(match &self.unsure {
                    Some(earlier) => still_unsure(replies, earlier),
                    None => replies,
                });
                Ok(rest)
            }
            failed => failed,
        };
        self.last = Some(rest);
        Some((self, reason))
    }

    /// Removes the first commands.
    fn cut(&mut self, count: usize) {
        let mut at = 0;
        for _ in 0..count {
            // The adapter has packed the commands itself, so each is complete.
            if let Ok(Some(length)) = Scan::new().advance(&self.commands.packed[at..]) {
                at += length;
            }
        }
        self.commands.packed.drain(..at);
        self.commands.count -= count;
    }

    /// Sends the commands. The future gives the answer.
    pub(super) fn send(
        &mut self,
        nodes: &Nodes,
    ) -> (Arc<Node>, impl Future<Output = Answer> + use<>) {
        let slot = self.commands.slot.unwrap_or_default();
        let (node, asking) = match self.asked.take() {
            Some(node) => (node, true),
            None => (nodes.owner(slot), false),
        };
        let (packed, count) = if asking {
            (asking_each(&self.commands.packed), 2 * self.commands.count)
        } else {
            (self.commands.packed.clone(), self.commands.count)
        };
        let answer = node.publisher.send(packed, count);
        let answer = async move {
            let replies = answer.await?;
            // The answers to ASKING stand before the others.
            let step = if asking { 2 } else { 1 };
            Ok(replies.into_iter().skip(step - 1).step_by(step).collect())
        };
        (node, answer)
    }

    /// Answers the caller with an answer to the commands that are left.
    pub(super) fn finish_with(mut self, answer: Answer) {
        self.last = Some(answer);
        self.finish();
    }

    /// Answers the caller with what is known.
    pub(super) fn finish(self) {
        let Self {
            commands,
            mut done,
            last,
            unsure,
            ..
        } = self;
        let last = last.unwrap_or_else(|| Ok(not_served(commands.count)));
        let last = match (last, unsure) {
            (Ok(replies), Some(earlier)) => Ok(still_unsure(replies, &earlier)),
            (Err(Failure::NotSent(_, later)), Some(earlier)) => {
                Err(Failure::Unknown(unsure_again(&earlier, &later.cause)))
            }
            (last, _) => last,
        };
        let answer = match last {
            Ok(replies) => {
                done.extend(
                    replies
                        .into_iter()
                        .map(|reply| reply.map_err(error::in_vain)),
                );
                Ok(done)
            }
            Err(failure) if done.is_empty() => Err(failure),
            Err(Failure::Unknown(cause)) => {
                done.extend((0..commands.count).map(|_| Err(cause.clone())));
                Ok(done)
            }
            Err(Failure::NotSent(..)) => {
                done.extend(not_served(commands.count));
                Ok(done)
            }
        };
        let _ = commands.caller.send(answer);
    }
}

/// Answers for commands that no server took.
fn not_served(count: usize) -> Replies {
    let text = "TRYAGAIN no server took the command in time";
    (0..count).map(|_| Err(error::server_error(text))).collect()
}

#[cfg(test)]
pub(super) mod fixture {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;
    use crate::adapters::redis::net::numbers::Numbering;
    use crate::adapters::redis::resp::pack;
    use crate::domain::ErrorKind;

    pub(in crate::adapters::redis::net::routing) fn nodes() -> Arc<Nodes> {
        let url = "redis+cluster://127.0.0.1:1";
        Nodes::new(Server::read(url, &Access::default()).unwrap()).unwrap()
    }

    pub(in crate::adapters::redis::net::routing) fn single() -> Arc<Nodes> {
        Nodes::new(Server::read("redis://127.0.0.1:1", &Access::default()).unwrap()).unwrap()
    }

    /// Three commands, and the end at which their caller waits.
    pub(in crate::adapters::redis::net::routing) fn three() -> (Repeated, oneshot::Receiver<Answer>)
    {
        let mut packed = Vec::new();
        for n in ["1", "22", "333"] {
            pack(&mut packed, &[b"XADD", n.as_bytes()]);
        }
        let (caller, answer) = oneshot::channel();
        let commands = Commands {
            slot: Some(7),
            call: 1,
            packed,
            count: 3,
            numbers: None,
            caller,
        };
        (Repeated::new(commands, Instant::now()), answer)
    }

    pub(in crate::adapters::redis::net::routing) fn done() -> Result<Bytes, RedisError> {
        Ok(Bytes::from_static(b"+OK\r\n"))
    }

    pub(in crate::adapters::redis::net::routing) fn moved() -> Result<Bytes, RedisError> {
        Err(error::server_error("MOVED 7 127.0.0.1:2"))
    }

    pub(in crate::adapters::redis::net::routing) fn numbered()
    -> (Repeated, oneshot::Receiver<Answer>) {
        let (mut publish, answer) = three();
        let numbers = Numbering::default().give(3);
        publish.commands.numbers = numbers.map(Box::new);
        (publish, answer)
    }

    pub(in crate::adapters::redis::net::routing) fn unreachable() -> Answer {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(Failure::NotSent("h:1".into(), refused.into()))
    }

    pub(in crate::adapters::redis::net::routing) async fn kinds(
        answer: oneshot::Receiver<Answer>,
    ) -> Vec<Option<ErrorKind>> {
        let kind = |one: Result<_, _>| one.err().map(|cause| error::sent("publish", cause).kind());
        match answer.await.unwrap() {
            Ok(replies) => replies.into_iter().map(kind).collect(),
            Err(failure) => vec![Some(failure.into_error("publish").kind())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::*;
    use super::*;
    use crate::adapters::redis::resp::pack;
    use crate::domain::ErrorKind;

    #[tokio::test]
    async fn only_the_commands_that_were_not_done_are_sent_again() {
        let nodes = nodes();
        let (publish, answer) = three();
        let replies = vec![done(), moved(), moved()];
        let (rest, reason) = publish.take(Ok(replies), &nodes).unwrap();
        assert!(matches!(reason, Undone::Moved { slot: 7, .. }));
        let mut expected = Vec::new();
        pack(&mut expected, &[b"XADD", b"22"]);
        pack(&mut expected, &[b"XADD", b"333"]);
        assert_eq!((&rest.commands.packed, rest.commands.count), (&expected, 2));
        assert!(rest.take(Ok(vec![done(), done()]), &nodes).is_none());
        let replies = answer.await.unwrap().unwrap();
        assert_eq!(replies.len(), 3);
        assert!(replies.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_command_that_a_younger_one_overtook_is_not_sent_again() {
        let nodes = nodes();
        let (publish, answer) = three();
        let replies = vec![done(), moved(), done()];
        assert!(publish.take(Ok(replies), &nodes).is_none());
        let replies = answer.await.unwrap().unwrap();
        let failure = replies[1].clone().unwrap_err();
        let kind = error::sent("publish", failure).kind();
        assert_eq!(kind, crate::domain::ErrorKind::Unavailable);
        assert!(replies[0].is_ok() && replies[2].is_ok());
    }

    #[tokio::test]
    async fn a_broken_connection_is_never_repeated_and_keeps_what_was_done() {
        let nodes = nodes();
        let (publish, answer) = three();
        let replies = vec![done(), moved(), moved()];
        let (rest, _) = publish.take(Ok(replies), &nodes).unwrap();
        assert!(rest.take(Err(Failure::of_ended_task()), &nodes).is_none());
        let replies = answer.await.unwrap().unwrap();
        assert!(replies[0].is_ok());
        for reply in &replies[1..] {
            let failure = reply.clone().unwrap_err();
            assert!(error::sent("publish", failure).is_outcome_unknown());
        }
    }

    #[tokio::test]
    async fn a_numbered_publish_is_repeated_after_a_broken_connection() {
        let nodes = single();
        let (publish, answer) = numbered();
        let (again, reason) = publish.take(Err(Failure::of_ended_task()), &nodes).unwrap();
        assert_eq!((reason, again.commands.count), (Undone::Unreachable, 3));
        let (again, _) = again.take(unreachable(), &nodes).unwrap();
        assert!(
            again
                .take(Ok(vec![done(), done(), done()]), &nodes)
                .is_none()
        );
        assert_eq!(kinds(answer).await, [None, None, None]);
    }

    #[tokio::test]
    async fn a_repeat_that_fails_leaves_the_outcome_of_the_first_attempt_unknown() {
        let nodes = single();
        let full = || Err(error::server_error("OOM command not allowed"));
        let unknown = Some(ErrorKind::OutcomeUnknown);
        for (replies, expected) in [
            (vec![full(), full(), full()], vec![unknown; 3]),
            (vec![done(), full(), done()], vec![None, unknown, None]),
        ] {
            let (publish, answer) = numbered();
            let (again, _) = publish.take(Err(Failure::of_ended_task()), &nodes).unwrap();
            assert!(again.take(Ok(replies), &nodes).is_none());
            assert_eq!(kinds(answer).await, expected);
        }
        // Its time ends while no server can be reached.
        let (publish, answer) = numbered();
        let (again, _) = publish.take(Err(Failure::of_ended_task()), &nodes).unwrap();
        let (again, _) = again.take(unreachable(), &nodes).unwrap();
        again.finish();
        assert_eq!(kinds(answer).await, [unknown]);
    }

    #[tokio::test]
    async fn a_publish_that_no_server_took_in_time_certainly_was_not_done() {
        let (publish, answer) = three();
        publish.finish();
        for reply in answer.await.unwrap().unwrap() {
            let kind = error::sent("publish", reply.unwrap_err()).kind();
            assert_eq!(kind, crate::domain::ErrorKind::Unavailable);
        }
    }
}
