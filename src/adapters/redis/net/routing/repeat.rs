//! Repeats the publishes of a slot, the oldest first, until its gate can open.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::node::Node;
use super::nodes::Nodes;
use super::pause::Pause;
use super::repeated::Repeated;
use crate::adapters::redis::net::commands::{Answer, Failure};
use crate::adapters::redis::net::error::NoConnection;
use crate::adapters::redis::net::redirect::Undone;

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
            let is_over = one.unsure.is_some() && !one.commands.may_repeat();
            if now < one.deadline && !is_over {
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
    use super::super::repeated::fixture::*;
    use super::*;
    use crate::adapters::redis::net::error;
    use crate::domain::ErrorKind;

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
    async fn a_forgotten_number_is_not_sent_again() {
        let nodes = single();
        let (older, answer) = numbered();
        let (mut older, _) = older.take(Err(Failure::of_ended_task()), &nodes).unwrap();
        let mut queue = Queue::default();
        if let Some(numbers) = &mut older.commands.numbers {
            numbers.end();
        }
        queue.publishes.push_back(older);
        queue.expire();
        assert!(queue.publishes.is_empty());
        assert_eq!(kinds(answer).await, [Some(ErrorKind::OutcomeUnknown)]);
        // Nor is it sent again when the connection breaks late.
        let (mut late, answer) = numbered();
        if let Some(numbers) = &mut late.commands.numbers {
            numbers.end();
        }
        assert!(late.take(Err(Failure::of_ended_task()), &nodes).is_none());
        assert_eq!(kinds(answer).await, [Some(ErrorKind::OutcomeUnknown)]);
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
}
