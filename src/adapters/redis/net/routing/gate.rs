//! Keeps the publishes of a slot in order while the slot is not served where it was.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::node::Node;
use crate::adapters::redis::net::commands::{Answer, Commands};

/// A publish that waits at a gate.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Parked {
    pub(in crate::adapters::redis::net) commands: Commands,
    /// When it came here.
    pub(in crate::adapters::redis::net) since: Instant,
    /// The answer so far and the node that gave it; `None` when nothing was sent yet.
    pub(in crate::adapters::redis::net) answer: Option<(Arc<Node>, Answer)>,
    /// A younger publish of the same call was done, so this one is too late.
    pub(in crate::adapters::redis::net) overtaken: bool,
}

/// The publishes of a slot that wait, the oldest first.
///
/// While a slot has a gate, no publish of it goes to a server except by the task that works the
/// gate off. Publishes that were under way when the gate closed come back before the younger ones,
/// because that task first waits until the former owners have answered all that they were sent.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Gate {
    /// Tells this gate from an earlier one of the slot.
    identity: Arc<()>,
    former: Vec<Arc<Node>>,
    waiting: VecDeque<Parked>,
    /// How many of them were under way when the gate closed.
    returned: usize,
    worked_off: bool,
}

impl Gate {
    /// A gate behind the node that may still answer publishes of the slot.
    pub(in crate::adapters::redis::net) fn behind(former: Arc<Node>) -> Self {
        Self {
            identity: Arc::default(),
            former: vec![former],
            waiting: VecDeque::new(),
            returned: 0,
            worked_off: false,
        }
    }

    pub(in crate::adapters::redis::net) fn identity(&self) -> &Arc<()> {
        &self.identity
    }

    /// Adds a publish that a server has not done.
    pub(in crate::adapters::redis::net) fn take_back(
        &mut self,
        commands: Commands,
        by: Arc<Node>,
        answer: Answer,
    ) {
        self.put_back(commands, Some((by, answer)));
    }

    /// Adds a publish that was never sent, behind those that came back before.
    pub(in crate::adapters::redis::net) fn take_back_unsent(&mut self, commands: Commands) {
        self.put_back(commands, None);
    }

    fn put_back(&mut self, commands: Commands, answer: Option<(Arc<Node>, Answer)>) {
        let parked = Parked {
            commands,
            since: Instant::now(),
            answer,
            overtaken: false,
        };
        self.waiting.insert(self.returned, parked);
        self.returned += 1;
    }

    /// Adds a new publish.
    pub(in crate::adapters::redis::net) fn park(&mut self, commands: Commands) {
        self.waiting.push_back(Parked {
            commands,
            since: Instant::now(),
            answer: None,
            overtaken: false,
        });
    }

    /// Notes that a younger publish of a call was done than those that came back.
    pub(in crate::adapters::redis::net) fn overtaken(&mut self, call: u64) {
        for parked in &mut self.waiting {
            parked.overtaken |= parked.commands.call == call && parked.answer.is_some();
        }
    }

    /// Whether the caller must start the task that works the gate off: true once.
    pub(in crate::adapters::redis::net) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.worked_off, true)
    }

    /// Whether nothing ever waited here and the former owner is this one.
    pub(in crate::adapters::redis::net) fn is_idle_behind(&self, former: &Arc<Node>) -> bool {
        !self.worked_off && self.former.iter().all(|one| Arc::ptr_eq(one, former))
    }

    /// The nodes that may still answer publishes of the slot; they are given once.
    pub(in crate::adapters::redis::net) fn former(&mut self) -> Vec<Arc<Node>> {
        std::mem::take(&mut self.former)
    }

    /// All that waits now, the oldest first.
    pub(in crate::adapters::redis::net) fn take(&mut self) -> VecDeque<Parked> {
        self.returned = 0;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;
    use crate::adapters::redis::net::routing::nodes::Nodes;

    fn commands(call: u64) -> Commands {
        let (caller, _) = oneshot::channel();
        Commands {
            slot: Some(0),
            call,
            packed: Vec::new(),
            count: 1,
            numbers: None,
            caller,
        }
    }

    fn gate() -> (Arc<Node>, Gate) {
        let url = "redis://127.0.0.1:1";
        let found = Server::read(url, &Access::default()).unwrap();
        let node = Nodes::new(found).unwrap().owner(0);
        (Arc::clone(&node), Gate::behind(node))
    }

    #[tokio::test]
    async fn publishes_that_come_back_stand_before_those_that_never_left() {
        let (node, mut gate) = gate();
        gate.take_back(commands(1), Arc::clone(&node), Ok(Vec::new()));
        gate.park(commands(3));
        let other = Arc::clone(&node);
        gate.take_back(commands(2), node, Ok(Vec::new()));
        gate.park(commands(4));
        let order: Vec<u64> = gate.take().iter().map(|one| one.commands.call).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert!(gate.take().is_empty());
        gate.take_back(commands(1), Arc::clone(&other), Ok(Vec::new()));
        gate.park(commands(3));
        gate.take_back_unsent(commands(2));
        let order: Vec<u64> = gate.take().iter().map(|one| one.commands.call).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[tokio::test]
    async fn only_older_publishes_of_the_same_call_are_overtaken() {
        let (node, mut gate) = gate();
        gate.take_back(commands(1), Arc::clone(&node), Ok(Vec::new()));
        gate.take_back(commands(2), node, Ok(Vec::new()));
        gate.park(commands(1));
        gate.overtaken(1);
        let overtaken: Vec<bool> = gate.take().iter().map(|one| one.overtaken).collect();
        assert_eq!(overtaken, [true, false, false]);
    }

    #[tokio::test]
    async fn a_gate_is_worked_off_by_one_task() {
        let (node, mut gate) = gate();
        assert!(gate.is_idle_behind(&node));
        assert_eq!((gate.begin(), gate.begin()), (true, false));
        assert!(!gate.is_idle_behind(&node), "its task opens it");
        assert_eq!((gate.former().len(), gate.former().len()), (1, 0));
    }
}
