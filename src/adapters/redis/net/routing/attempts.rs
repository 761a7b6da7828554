//! Repeats calls that certainly were not done, until a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::nodes::Nodes;
use super::pause::Pause;
use crate::adapters::redis::net::redirect::Undone;

/// How many redirects are followed without a pause. Two nodes may name each other for a while.
const REDIRECTS: u32 = 3;

/// A call that is repeated while it certainly was not done.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Attempts {
    slot: u16,
    limit: Duration,
    /// Known from the first failure on.
    deadline: Option<Instant>,
    redirects: u32,
    pause: Pause,
    /// The node that answers the next attempt only, while the slot moves to it.
    asked: Option<Arc<Node>>,
}

impl Attempts {
    pub(in crate::adapters::redis::net) fn new(slot: u16, limit: Duration) -> Self {
        Self {
            slot,
            limit,
            deadline: None,
            redirects: 0,
            pause: Pause::default(),
            asked: None,
        }
    }

    /// The node for the next attempt, and whether it must be told that the key moves to it.
    pub(in crate::adapters::redis::net) fn node(&mut self, nodes: &Nodes) -> (Arc<Node>, bool) {
        match self.asked.take() {
            Some(node) => (node, true),
            None => (nodes.owner(self.slot), false),
        }
    }

    /// Prepares the next attempt after one that was not done. Returns false when there is none: the
    /// time is over, or a repeat cannot help.
    pub(in crate::adapters::redis::net) async fn prepare(
        &mut self,
        nodes: &Nodes,
        at: &Node,
        undone: &Undone,
    ) -> bool {
        let limit = self.limit;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + limit);
        if Instant::now() >= deadline {
            return false;
        }
        match undone {
            Undone::NotReady => {}
            _ if !nodes.may_change() => return false,
            Undone::Unreachable => {}
            _ if !nodes.is_clustered() => return false,
            Undone::Moved { slot, to } => {
                nodes.moved(*slot, to, at);
                self.redirects += 1;
                if self.redirects <= REDIRECTS {
                    return true;
                }
            }
            Undone::Ask { to } => {
                let node = nodes.named(to, at);
                node.note_redirect();
                self.asked = Some(node);
                self.redirects += 1;
                if self.redirects <= REDIRECTS {
                    return true;
                }
            }
        }
        // After a pause the slot may be elsewhere. A node that is told of a key that does not move to it
        // any more could create that key a second time.
        self.asked = None;
        self.pause.next().await;
        // Without an answer the next attempt goes to the same node.
        timeout_at(deadline, nodes.learn()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;

    #[tokio::test]
    async fn a_call_does_not_ask_for_nodes_beyond_its_deadline() {
        // The system accepts the connections of a listener that nobody serves.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis+cluster://{}", silent.local_addr().unwrap());
        let nodes = Nodes::new(Server::read(&url, &Access::default()).unwrap()).unwrap();
        let mut attempts = Attempts::new(7, Duration::from_millis(100));
        let (node, _) = attempts.node(&nodes);
        let again = attempts.prepare(&nodes, &node, &Undone::Unreachable).await;
        assert!(!again, "its time is over");
        assert!(nodes.learn().await.is_err(), "another caller can ask");
    }
}
