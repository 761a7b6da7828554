//! Repeats the publishes of a slot, the oldest first, until its gate can open.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use redis::RedisError;
use tokio::time::Instant;

use super::node::Node;
use super::nodes::Nodes;
use super::pause::{PUBLISH_LIMIT, Pause};
use crate::adapters::redis::net::commands::{
    Answer, Commands, Failure, Replies, asking_each, still_unsure, unsure_again,
};
use crate::adapters::redis::net::error::{self, NoConnection};
use crate::adapters::redis::net::redirect::{Undone, undone};
use crate::adapters::redis::resp::Scan;

/// A publish that is repeated.
#[derive(Debug)]
struct Repeated {
    commands: Commands,
    /// The answers to the commands that were done. The others are still in `commands`.
    done: Replies,
    deadline: Instant,
    /// The last answer to the others.
    last: Option<Answer>,
    /// Why the outcome of an earlier attempt is unknown. Another server may have done it.
    unsure: Option<RedisError>,
    /// The node that answers the next attempt only.
    asked: Option<Arc<Node>>,
}

impl Repeated {
    fn new(commands: Commands, since: Instant) -> Self {
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
    fn take(mut self, answer: Answer, nodes: &Nodes) -> Option<(Self, Undone)> {
        let reason = match &answer {
            Err(Failure::NotSent(..)) if nodes.repeats(&answer) => Undone::Unreachable,
            Err(Failure::NotSent(_, cause)) if self.unsure.is_some() && cause.is_passing() => {
                Undone::Unreachable
            }
            Err(Failure::Unknown(cause)) if self.commands.may_repeat() => {
                self.unsure = Some(cause.clone());
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
    fn send(&mut self, nodes: &Nodes) -> (Arc<Node>, impl Future<Output = Answer> + use<>) {
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
    fn finish_with(mut self, answer: Answer) {
        self.last = Some(answer);
        self.finish();
    }

    /// Answers the caller with what is known.
    fn finish(self) {
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

/// Removes the gate when its task ends, however it ends. Publishes that wait then fail.
struct Working {
    nodes: Weak<Nodes>,
    slot: u16,
    identity: Arc<()>,
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(nodes) = self.nodes.upgrade() {
            nodes.remove_gate(self.slot, &self.identity);
        }
    }
}

/// The publishes that a gate's task repeats, the oldest first.
#[derive(Debug, Default)]
struct Queue {
    publishes: VecDeque<Repeated>,
    /// The slot is not served: the oldest publish alone finds out when it is again.
    probing: bool,
    /// How many rounds in a row ended in a redirect.
    redirects: u32,
    pause: Pause,
}

/// How many redirects are followed without a pause. Two nodes may name each other for a while.
const REDIRECTS: u32 = 3;

/// Sends the waiting publishes of a gate until the gate can open.
pub(super) async fn work_off(
    nodes: Weak<Nodes>,
    (slot, identity): (u16, Arc<()>),
    former: Vec<Arc<Node>>,
) {
    let working = Working {
        nodes,
        slot,
        identity,
    };
    for node in former {
        node.publisher.drained().await;
    }
    let mut queue = Queue::default();
    loop {
        let Some(nodes) = working.nodes.upgrade() else {
            return;
        };
        let Some(answers) = queue.collect(&nodes, slot, &working.identity) else {
            return;
        };
        if answers.is_empty() {
            queue.expire();
            let sent = queue.send(&nodes);
            let mut answers = Vec::with_capacity(sent.len());
            for (one, node, answer) in sent {
                answers.push((one, node, answer.await));
            }
            queue.settle(&nodes, answers);
        } else {
            queue.settle(&nodes, answers);
        }
        if queue.probing || queue.redirects > REDIRECTS {
            // After a pause the slot may be elsewhere. A node that is told of a key that does not move
            // to it any more could create that key a second time.
            queue.publishes.iter_mut().for_each(|one| one.asked = None);
            queue.pause.next().await;
            let _ = nodes.learn().await;
        }
    }
}

/// A publish, the node that it was sent to, and the answer.
type Answered = (Repeated, Arc<Node>, Answer);

impl Queue {
    /// Takes the publishes that wait at the gate. Returns the answers that came back, or opens the gate and
    /// returns `None` when nothing has to be repeated.
    ///
    /// `None` also for a gate that was removed while its task stood still with its runtime.
    fn collect(&mut self, nodes: &Nodes, slot: u16, identity: &Arc<()>) -> Option<Vec<Answered>> {
        let mut routes = nodes.change();
        let gate = routes.gates.get_mut(&slot);
        let gate = gate.filter(|gate| Arc::ptr_eq(gate.identity(), identity))?;
        let waiting = gate.take();
        if self.publishes.is_empty() && waiting.iter().all(|parked| parked.answer.is_none()) {
            routes.gates.remove(&slot);
            let node = routes.map.owner(slot);
            for parked in waiting {
                node.publisher.forward(parked.commands);
            }
            return None;
        }
        let mut answers = Vec::new();
        for parked in waiting {
            let one = Repeated::new(parked.commands, parked.since);
            match parked.answer {
                Some((_, answer)) if parked.overtaken => one.finish_with(answer),
                Some((node, answer)) => answers.push((one, node, answer)),
                None => self.publishes.push_back(one),
            }
        }
        Some(answers)
    }

    /// Answers the publishes whose time is over, and removes those whose caller has given up.
    fn expire(&mut self) {
        let now = Instant::now();
        for one in std::mem::take(&mut self.publishes) {
            if one.commands.caller.is_closed() {
                continue;
            }
            let forgotten = one.unsure.is_some() && !one.commands.may_repeat();
            if now < one.deadline && !forgotten {
                self.publishes.push_back(one);
            } else {
                one.finish();
            }
        }
    }

    /// Sends the publishes, the oldest first.
    fn send(
        &mut self,
        nodes: &Nodes,
    ) -> Vec<(Repeated, Arc<Node>, impl Future<Output = Answer> + use<>)> {
        let all = self.publishes.len();
        let count = if self.probing { all.min(1) } else { all };
        let sending = self.publishes.drain(..count).map(|mut one| {
            let (node, answer) = one.send(nodes);
            (one, node, answer)
        });
        sending.collect()
    }

    /// Puts the publishes that are repeated back in front of the others.
    fn settle(&mut self, nodes: &Nodes, answers: Vec<Answered>) {
        self.probing = false;
        let mut again = VecDeque::new();
        let mut redirected = false;
        let mut out_of_reach = None;
        for (one, node, answer) in answers {
            if let Err(Failure::NotSent(address, cause)) = &answer {
                out_of_reach = Some((Arc::clone(address), cause.clone()));
            }
            if answer
                .as_ref()
                .is_ok_and(|replies| replies.iter().any(Result::is_ok))
            {
                finish_call(&mut again, one.commands.call);
            }
            let Some((mut one, reason)) = one.take(answer, nodes) else {
                continue;
            };
            redirected = true;
            match reason {
                Undone::Moved { slot, to } => nodes.moved(slot, &to, &node),
                Undone::Ask { to } => {
                    let named = nodes.named(&to, &node);
                    named.note_redirect();
                    one.asked = Some(named);
                }
                Undone::NotReady | Undone::Unreachable => self.probing = true,
            }
            again.push_back(one);
        }
        self.redirects = if redirected { self.redirects + 1 } else { 0 };
        again.append(&mut self.publishes);
        self.publishes = again;
        if let Some((address, cause)) = out_of_reach.filter(|_| !nodes.may_change()) {
            self.fail_unsent(&address, &cause);
        }
    }

    /// Answers those that were never sent to a single server which cannot be reached: they would fail at once
    /// if nothing stood before them.
    fn fail_unsent(&mut self, address: &Arc<str>, cause: &NoConnection) {
        for one in std::mem::take(&mut self.publishes) {
            if one.unsure.is_some() {
                self.publishes.push_back(one);
            } else {
                let failure = Failure::NotSent(Arc::clone(address), cause.clone());
                one.finish_with(Err(failure));
            }
        }
    }
}

/// Answers the publishes of a call of which a server has done a younger one: a repeat would break the
/// order.
fn finish_call(older: &mut VecDeque<Repeated>, call: u64) {
    for one in std::mem::take(older) {
        if one.commands.call == call {
            one.finish();
        } else {
            older.push_back(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;
    use crate::adapters::redis::net::numbers::Numbering;
    use crate::adapters::redis::resp::pack;
    use crate::domain::ErrorKind;

    fn nodes() -> Arc<Nodes> {
        let url = "redis+cluster://127.0.0.1:1";
        Nodes::new(Server::read(url, &Access::default()).unwrap()).unwrap()
    }

    fn single() -> Arc<Nodes> {
        Nodes::new(Server::read("redis://127.0.0.1:1", &Access::default()).unwrap()).unwrap()
    }

    /// Three commands, and the end at which their caller waits.
    fn three() -> (Repeated, oneshot::Receiver<Answer>) {
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

    fn done() -> Result<Bytes, RedisError> {
        Ok(Bytes::from_static(b"+OK\r\n"))
    }

    fn moved() -> Result<Bytes, RedisError> {
        Err(error::server_error("MOVED 7 127.0.0.1:2"))
    }

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
    async fn a_publish_that_a_younger_one_of_its_call_overtook_is_not_sent_again() {
        let nodes = nodes();
        let node = nodes.owner(7);
        for (younger_call, repeated) in [(1, 0), (2, 1)] {
            let ((older, answer), (mut younger, _answer)) = (three(), three());
            younger.commands.call = younger_call;
            let mut queue = Queue::default();
            let answers = vec![
                (
                    older,
                    Arc::clone(&node),
                    Ok(vec![moved(), moved(), moved()]),
                ),
                (younger, Arc::clone(&node), Ok(vec![done(), done(), done()])),
            ];
            queue.settle(&nodes, answers);
            assert_eq!(queue.publishes.len(), repeated);
            if repeated == 0 {
                for reply in answer.await.unwrap().unwrap() {
                    let kind = error::sent("publish", reply.unwrap_err()).kind();
                    assert_eq!(kind, crate::domain::ErrorKind::Unavailable);
                }
            }
        }
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

    fn numbered() -> (Repeated, oneshot::Receiver<Answer>) {
        let (mut publish, answer) = three();
        let numbers = Numbering::default().give(3);
        publish.commands.numbers = numbers.map(Box::new);
        (publish, answer)
    }

    fn unreachable() -> Answer {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(Failure::NotSent("h:1".into(), refused.into()))
    }

    async fn kinds(answer: oneshot::Receiver<Answer>) -> Vec<Option<ErrorKind>> {
        let kind = |one: Result<_, _>| one.err().map(|cause| error::sent("publish", cause).kind());
        match answer.await.unwrap() {
            Ok(replies) => replies.into_iter().map(kind).collect(),
            Err(failure) => vec![Some(failure.into_error("publish").kind())],
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
    async fn what_was_never_sent_does_not_wait_for_a_single_server() {
        let nodes = single();
        let ((older, _older), (younger, answer)) = (numbered(), numbered());
        let (older, _) = older.take(Err(Failure::of_ended_task()), &nodes).unwrap();
        let mut queue = Queue::default();
        queue.publishes.push_back(younger);
        queue.settle(&nodes, vec![(older, nodes.owner(0), unreachable())]);
        assert_eq!(queue.publishes.len(), 1, "the older one may have been done");
        assert_eq!(kinds(answer).await, [Some(ErrorKind::Unavailable)]);
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
