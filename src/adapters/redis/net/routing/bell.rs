//! The doorbell: one connection per node on which the server tells which keys have changed.
//!
//! With `CLIENT TRACKING` the server watches each key that a connection reads, and tells of its next change. So
//! the reads of subscriptions go over the same connection. The server then tells a process only of keys that it
//! uses, and of several changes between two reads once. Keys that nobody reads there are asked for (`EXISTS`).
//!
//! The connection speaks version 3 of the protocol, so the names and the replies come on one connection, and
//! either of them shows that it lives. A process that stands still costs the server one notice for each key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::RedisError;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::conversation::{Notes, Patience, attend_socket};
use super::ear::{Ear, Hears};
use super::node::Node;
use super::nodes::Nodes;
use crate::adapters::redis::net::connections::socket::{Socket, within};
use crate::adapters::redis::net::error::NoConnection;
use crate::adapters::redis::net::redirect::undone;
use crate::api::supervise::log;

/// How long a silent connection is relied on.
const PATIENCE: Patience = Patience {
    ping_every: Duration::from_secs(2),
    answer_within: Duration::from_millis(1500),
};
/// How long the set-up of a connection may take.
const SET_UP_WITHIN: Duration = Duration::from_secs(2);
/// How often the owners of slots are compared with the nodes that are listened to.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// After how many comparisons without a change the listener is told anyway: it then forgets groups that
/// nobody reads any more.
const TELL_ANYWAY: u32 = 60;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that has lasted so long was sound: the next pause is short again.
const LASTING: Duration = Duration::from_secs(1);
/// The pause after the server has refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// The number of the last connection of this process. A task that starts again must not use the numbers
/// of an earlier one.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Which connection hears each node.
#[derive(Debug, Default)]
struct Connections {
    by_node: Mutex<Vec<(Arc<Node>, Ear)>>,
    changed: Notify,
}

impl Connections {
    /// Notes that a new connection hears a node, or that nothing may be relied on that an earlier one
    /// has heard.
    fn begin(&self, node: &Arc<Node>, ear: &Ear) {
        let number = LAST.fetch_add(1, Ordering::AcqRel) + 1;
        self.leave(node);
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.push((Arc::clone(node), ear.numbered(number)));
        self.changed.notify_one();
    }

    /// Notes that nobody hears a node.
    fn leave(&self, node: &Arc<Node>) {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.retain(|(known, _)| !Arc::ptr_eq(known, node));
        self.changed.notify_one();
    }

    /// Notes that a connection has ended.
    fn end(&self, ear: &Ear) {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.retain(|(_, known)| !known.is(ear));
        self.changed.notify_one();
    }

    fn get(&self) -> Vec<(Arc<Node>, Ear)> {
        let by_node = self.by_node.lock();
        by_node.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that hears a node, until this is dropped: also where its task ends in a panic.
struct Hearing<'a> {
    connections: &'a Connections,
    node: &'a Arc<Node>,
    ear: &'a Ear,
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.node.remove_ear(self.ear);
        self.connections.end(self.ear);
    }
}

/// A task that ends with its handle.
struct Attending(Arc<Node>, AbortHandle);

impl Drop for Attending {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Listens at each node that holds a slot, until nobody hears.
pub(in crate::adapters::redis::net) async fn listen(nodes: Arc<Nodes>, hears: Weak<dyn Hears>) {
    let connections = Arc::<Connections>::default();
    let mut attended: Vec<Attending> = Vec::new();
    // What the listener was last told of, and how often it was not told since.
    let (mut told, mut untold) = (None, 0);
    loop {
        // A cluster that does not answer is listened to as far as it is known.
        let _ = nodes.ready("listen").await;
        let owners = nodes.routes().map.owners();
        attended.retain(|Attending(node, task)| {
            let stays = owners.iter().any(|owner| Arc::ptr_eq(owner, node));
            if !stays {
                connections.leave(node);
            }
            // A task that has panicked begins again.
            stays && !task.is_finished()
        });
        for owner in owners {
            if attended.iter().any(|one| Arc::ptr_eq(&one.0, &owner)) {
                continue;
            }
            let attending = tokio::spawn(attend(
                Arc::clone(&nodes),
                Arc::clone(&owner),
                hears.clone(),
                Arc::clone(&connections),
            ));
            attended.push(Attending(owner, attending.abort_handle()));
        }
        let Some(listener) = hears.upgrade() else {
            return;
        };
        let heard = connections.get();
        let numbers: Vec<u64> = heard.iter().map(|(_, ear)| ear.number()).collect();
        let map = nodes.routes().map.clone();
        let now = Some((map.fingerprint(), numbers));
        untold += 1;
        if told != now || untold >= TELL_ANYWAY {
            (told, untold) = (now, 0);
            listener.heard_by(Box::new(move |slot| {
                let owner = map.owner(slot);
                let connection = heard.iter().find(|(node, _)| Arc::ptr_eq(node, owner));
                connection.map(|(_, ear)| ear.clone())
            }));
        }
        drop(listener);
        tokio::select! {
            () = connections.changed.notified() => {}
            () = sleep(COMPARE_EVERY) => {}
        }
    }
}

/// Listens at one node. Connects again after a failure.
async fn attend(
    nodes: Arc<Nodes>,
    node: Arc<Node>,
    hears: Weak<dyn Hears>,
    connections: Arc<Connections>,
) {
    let mut failures = 0_u32;
    loop {
        let ended = match connect(&node).await {
            Ok(socket) => {
                if failures > 0 {
                    metrics::counter!("redstart_reconnects_total", "connection" => "redstart:bell")
                        .increment(1);
                }
                let began = Instant::now();
                let cause = tokio::select! {
                    biased;
                    cause = hear(socket, &nodes, &node, &hears, &connections) => cause,
                    () = node.is_left() => return,
                };
                if began.elapsed() >= LASTING {
                    failures = 0;
                }
                log(|| {
                    tracing::debug!(server = %node.address(), %cause, "the doorbell's connection has ended");
                });
                cause.into()
            }
            Err(failure) => failure,
        };
        let pause = if is_refusal(&ended) {
            if let Some(hears) = hears.upgrade() {
                hears.refused(&ended.cause.to_string());
            }
            REFUSED_PAUSE
        } else {
            failures = failures.saturating_add(1);
            SHORTEST_PAUSE
                .saturating_mul(1 << (failures - 1).min(8))
                .min(LONGEST_PAUSE)
        };
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            () = node.is_left() => return,
        }
    }
}

async fn connect(node: &Node) -> Result<Socket, NoConnection> {
    let mut socket = node.server.connect_socket("redstart:bell").await?;
    let hello = redis::cmd("HELLO").arg(3).to_owned();
    let tracking = redis::cmd("CLIENT").arg("TRACKING").arg("ON").to_owned();
    let setting_up = async {
        for command in [&hello, &tracking] {
            socket.exchange(command).await?;
        }
        Ok::<_, RedisError>(())
    };
    within(SET_UP_WITHIN, setting_up).await?;
    Ok(socket)
}

/// Passes on what a connection hears, and carries reads, until it fails.
async fn hear(
    socket: Socket,
    nodes: &Nodes,
    node: &Arc<Node>,
    hears: &Weak<dyn Hears>,
    connections: &Connections,
) -> RedisError {
    let (ear, questions) = Ear::new(node.address());
    node.set_ear(&ear);
    connections.begin(node, &ear);
    let _hearing = Hearing {
        connections,
        node,
        ear: &ear,
    };
    let notes = Notes {
        hears,
        all: &|| connections.begin(node, &ear),
        moved: &|| nodes.refresh(),
    };
    attend_socket(socket, PATIENCE, notes, questions).await
}

/// Whether a server answers that it does not offer what the doorbell needs, or not to this user.
fn is_refusal(failure: &NoConnection) -> bool {
    let cause = &failure.cause;
    !failure.is_passing()
        && !cause.is_io_error()
        && undone(cause).is_none()
        && cause.clone().into_server_errors().is_some()
        && cause.detail() != Some("max number of clients reached")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_dead_connection_is_made_good_within_five_seconds() {
        // The next connection to a server that is there is set up well within a second.
        let set_up = Duration::from_secs(1);
        let left = PATIENCE.ping_every + PATIENCE.answer_within;
        assert!(left + SHORTEST_PAUSE + set_up <= Duration::from_secs(5));
    }

    #[test]
    fn an_answer_of_the_server_is_a_refusal_and_a_broken_connection_is_none() {
        use crate::adapters::redis::net::error::server_error;
        for refusal in [
            "NOPERM User ann has no permissions to run the 'client|tracking' command",
            "ERR unknown command 'HELLO'",
            "NOPROTO unsupported protocol version",
        ] {
            assert!(is_refusal(&server_error(refusal).into()), "{refusal}");
        }
        for passing in [
            "LOADING Redis is loading",
            "ERR max number of clients reached",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        ] {
            assert!(!is_refusal(&server_error(passing).into()), "{passing}");
        }
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!is_refusal(&broken.into()));
    }
}
