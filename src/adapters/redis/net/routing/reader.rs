//! A connection for blocking reads, and how to end its read early.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisError};
use tokio::time::Instant;

use super::attempts::Attempts;
use super::node::Node;
use super::nodes::Nodes;
use super::pause::CALL_LIMIT;
use crate::adapters::redis::net::connections::socket::{Socket, within};
use crate::adapters::redis::net::error::{self, NoConnection, Step, is_sound};
use crate::adapters::redis::net::redirect::{Undone, undone};
use crate::adapters::redis::resp::{Head, reply};
use crate::domain::Error;

/// How long a connection may be silent, beyond the blocking time of a read, before it counts as dead.
const GRACE: Duration = Duration::from_secs(5);
/// The least time for which a read is repeated.
const SHORTEST_LIMIT: Duration = Duration::from_millis(250);

/// A connection that one reader owns. A blocking read would hold up every other command on it.
#[derive(Debug)]
pub(in crate::adapters::redis) struct ReaderConnection {
    nodes: Arc<Nodes>,
    slot: u16,
    name: String,
    socket: Socket,
    current: Arc<Current>,
}

/// The server that a reader's connection goes to, and the connection's id there.
#[derive(Debug)]
struct Current {
    connection: Mutex<(Arc<Node>, i64)>,
    /// Set by an interrupt: the read under way is not repeated.
    interrupted: AtomicBool,
}

impl Current {
    fn get(&self) -> (Arc<Node>, i64) {
        let connection = self.connection.lock();
        let connection = connection.unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&connection.0), connection.1)
    }

    fn set(&self, node: Arc<Node>, client: i64) {
        let connection = self.connection.lock();
        *connection.unwrap_or_else(PoisonError::into_inner) = (node, client);
    }
}

/// Why a read has no reply.
#[derive(Debug)]
pub(in crate::adapters::redis) enum ReadFailure {
    /// The command was sent.
    Sent(RedisError),
    /// The command was certainly not done, because the server that holds the key was out of reach.
    NotDone(Error),
}

impl ReaderConnection {
    /// Opens a connection to the server that holds a key.
    pub(in crate::adapters::redis::net) async fn open(
        nodes: &Arc<Nodes>,
        operation: &'static str,
        key: &str,
        name: &str,
    ) -> Result<(Self, Unblock), Error> {
        let slot = nodes.slot(key);
        let mut attempts = Attempts::new(slot, CALL_LIMIT);
        loop {
            let (node, _) = attempts.node(nodes);
            let failure = match connect(&node, name).await {
                Ok((socket, client)) => {
                    let current = Arc::new(Current {
                        connection: Mutex::new((node, client)),
                        interrupted: AtomicBool::new(false),
                    });
                    let unblock = Unblock {
                        current: Arc::clone(&current),
                    };
                    let reader = Self {
                        nodes: Arc::clone(nodes),
                        slot,
                        name: name.to_owned(),
                        socket,
                        current,
                    };
                    return Ok((reader, unblock));
                }
                Err(failure) => failure,
            };
            if failure.is_passing() && attempts.prepare(nodes, &node, &Undone::Unreachable).await {
                continue;
            }
            return Err(error::no_connection(operation, node.address(), failure));
        }
    }

    /// Sends a command that blocks for at most the time that it is given, and waits for its reply.
    /// Both together, and the repeats of a command that was not done, take about `wait`.
    ///
    /// Not cancel safe: after a drop the connection holds a reply that nobody reads.
    pub(in crate::adapters::redis) async fn exchange(
        &mut self,
        operation: &'static str,
        command: impl Fn(Duration) -> Cmd,
        wait: Duration,
    ) -> Result<Bytes, ReadFailure> {
        let began = Instant::now();
        let mut attempts = Attempts::new(self.slot, wait.max(SHORTEST_LIMIT));
        let mut asking = false;
        self.current.interrupted.store(false, Ordering::Release);
        loop {
            let rest = wait.saturating_sub(began.elapsed());
            let (node, _) = self.current.get();
            let packed = command(rest);
            let answered = tokio::select! {
                biased;
                answered = self.once(asking, &packed, rest) => answered,
                () = node.is_left() => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            };
            let cause = match answered {
                Ok(reply) => return Ok(reply),
                Err(cause) => cause,
            };
            let reason = match undone(&cause) {
                Some(reason) => reason,
                // The stream has gone from this server: it was deleted, or its slot has moved. The
                // answer to the next read tells which. The same words end the reads of a primary that
                // has become a replica.
                None if cause.code() == Some("UNBLOCKED") => continue,
                None => return Err(ReadFailure::Sent(cause)),
            };
            let is_final = self.current.interrupted.load(Ordering::Acquire)
                || !attempts.prepare(&self.nodes, &node, &reason).await;
            if is_final {
                return Err(if self.nodes.is_clustered() && error::is_redirect(&cause) {
                    ReadFailure::NotDone(error::redirected(operation, cause))
                } else {
                    ReadFailure::Sent(cause)
                });
            }
            let to;
            (to, asking) = attempts.node(&self.nodes);
            if !Arc::ptr_eq(&node, &to) || !is_sound(&cause) {
                self.reconnect(operation, to).await?;
            }
        }
    }

    async fn reconnect(
        &mut self,
        operation: &'static str,
        to: Arc<Node>,
    ) -> Result<(), ReadFailure> {
        match connect(&to, &self.name).await {
            Ok((socket, client)) => {
                self.socket = socket;
                self.current.set(to, client);
                Ok(())
            }
            Err(failure) => {
                self.nodes.refresh();
                let error = error::no_connection(operation, to.address(), failure);
                Err(ReadFailure::NotDone(error))
            }
        }
    }

    async fn once(
        &mut self,
        asking: bool,
        command: &Cmd,
        wait: Duration,
    ) -> Result<Bytes, RedisError> {
        if asking {
            let command = redis::cmd("ASKING");
            within(GRACE, self.socket.command(&command)).await?;
        }
        // The limits are for silence. A reply of many megabytes takes its time on a slow link, and a
        // late one still comes: no other time limit ends the read.
        let first = async {
            self.socket.write(&command.get_packed_command()).await?;
            self.socket.fill().await
        };
        within(wait + GRACE, first).await?;
        loop {
            match self.socket.reply()? {
                Some(reply) => return reply,
                None => within(GRACE, self.socket.fill()).await?,
            }
        }
    }
}

/// Ends the blocking read of one connection. `CLIENT UNBLOCK` goes to the server that the
/// connection goes to, wherever the reader's key lies by now.
#[derive(Clone, Debug)]
pub(in crate::adapters::redis) struct Unblock {
    current: Arc<Current>,
}

impl Unblock {
    pub(in crate::adapters::redis) async fn unblock(
        &self,
        operation: &'static str,
    ) -> Result<(), Error> {
        self.current.interrupted.store(true, Ordering::Release);
        let (node, client) = self.current.get();
        let unblocked = node.pool.run(false, async |connection| {
            redis::cmd("CLIENT")
                .arg("UNBLOCK")
                .arg(client)
                .exec_async(connection)
                .await
        });
        let unblocked = unblocked.await;
        unblocked.map_err(|failure| node.pool.error(operation, failure))
    }
}

async fn connect(node: &Node, name: &str) -> Result<(Socket, i64), NoConnection> {
    let mut socket = node.server.connect_socket(name).await?;
    let asking = redis::cmd("CLIENT").arg("ID").to_owned();
    let unusable = |cause| NoConnection {
        step: Step::Introduce,
        cause,
    };
    let answer = within(GRACE, socket.command(&asking)).await;
    match answer.map_err(unusable)? {
        Head::Integer(client) => Ok((socket, client)),
        _ => Err(unusable(reply::unexpected("CLIENT ID"))),
    }
}
