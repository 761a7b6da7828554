//! Servers and connections. Nothing outside this folder knows how many servers there are.
//!
//! Every call names a key, and the server that holds this key runs the call. This folder also
//! decides how certain a failure is: not done, refused, or unknown.

mod commands;
mod connections;
mod denial;
mod durably;
mod each;
pub(super) mod error;
mod numbers;
mod redirect;
mod routing;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};
use tokio::time::timeout;

use super::resp::reply;
use super::scripts::{self, Call};
use crate::domain::{Durability, Error, ErrorKind, Namespace, NativeCommands};
use connections::pool::Failure;
use connections::server::{Layout, Server};
use redirect::{Undone, undone};
use routing::attempts::Attempts;
use routing::node::Node;
use routing::nodes::Nodes;
use routing::pause::{CALL_LIMIT, PUBLISH_LIMIT};

pub(super) use commands::Replies;
pub(crate) use connections::access::Access;
pub(super) use connections::connection::Connection;
pub(super) use connections::natives::{found as native_found, questions as native_questions};
#[cfg(feature = "testing")]
pub(crate) use connections::server::check_url;
pub(super) use connections::socket::refusal_of;
pub use connections::tls::TlsSettings;
pub(crate) use connections::url::address_of;
pub(super) use denial::missing_right;
pub(super) use numbers::{Numbers, REMEMBERED, REPEATED_FOR};
#[cfg(test)]
pub(super) use routing::ear::Questions;
pub(super) use routing::ear::{Ask, Ear, HeardBy, Hears};
pub(super) use routing::reader::{ReadFailure, ReaderConnection, Unblock};
pub(super) use routing::slots::of as slot_of;

/// How long a script's load on a node that does not own its key may delay the call.
const LOADED_WITHIN: Duration = Duration::from_millis(200);

/// All connections of one namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Net {
    nodes: Arc<Nodes>,
    /// The levels of durability that every server has shown that it can give.
    levels: Arc<Mutex<HashSet<Durability>>>,
}

/// A primary, for questions that no key routes.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    node: Arc<Node>,
}

impl Primary {
    /// Its address, without credentials.
    pub(super) fn address(&self) -> &str {
        self.node.address()
    }

    /// Runs commands without keys on a pooled connection.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        exchange: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let pool = &self.node.pool;
        let ran = pool.run(false, exchange).await;
        ran.map_err(|failure| pool.error(operation, failure))
    }
}

impl Primary {
    /// Whether it holds a key.
    pub(super) fn holds(&self, net: &Net, key: &str) -> bool {
        let slot = net.nodes.slot(key);
        Arc::ptr_eq(&self.node, net.nodes.routes().map.owner(slot))
    }

    /// The ranges of slots that it holds in a cluster.
    pub(super) fn slots(&self, net: &Net) -> Vec<(u16, u16)> {
        net.nodes.routes().map.ranges_of(&self.node)
    }

    /// Sends packed commands once on the publisher's link.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        packed: Vec<u8>,
        commands: usize,
    ) -> Result<Replies, Error> {
        let answer = self.node.publisher.send(packed, commands).await;
        answer.map_err(|failure| failure.into_error(operation))
    }
}

/// A link of a node.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Publisher,
    /// The publisher's link, for a question that a server must answer now.
    Impatient,
    Looker,
    /// The connection that subscriptions share for reads. Tells whether the server watches the keys of the last
    /// try.
    Reader(&'a AtomicBool),
}

impl Kind<'_> {
    /// The replies that decide whether the commands were done: what a read has brought must not be lost
    /// because a question before it failed.
    fn judged<'a>(&self, replies: &'a Replies) -> &'a [Result<Bytes, RedisError>] {
        match self {
            Self::Reader(_) => &replies[replies.len().saturating_sub(1)..],
            Self::Publisher | Self::Impatient | Self::Looker => replies,
        }
    }
}

impl Net {
    /// Prepares the connections; each is made when it is first used.
    pub(super) fn new(
        url: &str,
        access: &Access,
        namespace: Option<&Namespace>,
    ) -> Result<Self, Error> {
        let found = Server::read(url, access)?;
        if matches!(found.layout, Layout::Cluster) && namespace.is_none() {
            let rule = "in a cluster a namespace is required: without one the keys of the bus \
                        itself lie in different slots";
            return Err(Error::new(ErrorKind::Invalid, "connect", rule));
        }
        let nodes = Nodes::new(found);
        let nodes =
            nodes.ok_or_else(|| Error::new(ErrorKind::Invalid, "Redis URL", "names no server"))?;
        let levels = Arc::default();
        Ok(Self { nodes, levels })
    }

    /// Whether the URL names a cluster.
    pub(super) fn is_clustered(&self) -> bool {
        self.nodes.is_clustered()
    }

    /// Whether the URL names sentinels.
    pub(super) fn has_sentinels(&self) -> bool {
        self.nodes.has_sentinels()
    }

    /// The native commands that are switched on.
    pub(super) fn native(&self) -> NativeCommands {
        self.nodes.native()
    }

    /// Each primary that holds a slot.
    pub(super) async fn primaries(&self, operation: &'static str) -> Result<Vec<Primary>, Error> {
        self.nodes.ready(operation).await?;
        let owners = self.nodes.routes().map.owners();
        Ok(owners.into_iter().map(|node| Primary { node }).collect())
    }

    /// How many slots no node serves.
    pub(super) fn unserved_slots(&self) -> usize {
        self.nodes.routes().map.unserved()
    }

    /// Runs commands on a pooled connection. All their keys lie in the slot of `key`.
    ///
    /// While the server answers that it has not done a command, the exchange is repeated from its
    /// start. An exchange of several commands must allow that.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        key: &str,
        exchange: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError> + Clone,
    ) -> Result<T, Error> {
        let nodes = &*self.nodes;
        nodes.ready(operation).await?;
        let mut attempts = Attempts::new(nodes.slot(key), CALL_LIMIT);
        loop {
            let (node, asking) = attempts.node(nodes);
            let failure = match node.pool.run(asking, exchange.clone()).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let reason = match &failure {
                Failure::Sent(cause) => undone(cause),
                Failure::NotSent(cause) if cause.is_passing() => Some(Undone::Unreachable),
                _ => None,
            };
            if let Some(reason) = reason
                && attempts.prepare(nodes, &node, &reason).await
            {
                continue;
            }
            // The server may have been replaced.
            nodes.refresh();
            return Err(match failure {
                Failure::Sent(cause) if nodes.is_clustered() && error::is_redirect(&cause) => {
                    error::redirected(operation, cause)
                }
                failure => node.pool.error(operation, failure),
            });
        }
    }

    /// Calls a script on a pooled connection and reads its reply. The script's first key routes
    /// the call.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        call: &Call,
        read: impl FnOnce(Value) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let key = call.first_key();
        let reply = self.run(operation, key, async |connection| {
            call.run(connection).await
        });
        read(reply.await?).map_err(|e| error::sent(operation, e))
    }

    /// Numbers for messages of a key's stream, if its server adds numbered messages only once.
    pub(super) fn numbers(&self, key: &str, count: usize) -> Option<Numbers> {
        self.nodes.numbers(self.nodes.slot(key), count)
    }

    /// Sends packed commands on the publisher's link, in the order of the calls to this function.
    /// Commands that were certainly not done are repeated. Those of one publisher's `call` keep their
    /// order: where a server has done a younger one, the older ones fail. Commands with numbers are also
    /// repeated when their outcome is unknown.
    pub(super) fn publish(
        &self,
        operation: &'static str,
        (key, call): (&str, u64),
        packed: Vec<u8>,
        commands: usize,
        numbers: Option<Numbers>,
    ) -> impl Future<Output = Result<Replies, Error>> + Send + use<> {
        let (slot, numbers) = (self.nodes.slot(key), numbers.map(Box::new));
        let answer = self.nodes.publish(slot, call, packed, commands, numbers);
        async move {
            answer
                .await
                .map_err(|failure| failure.into_error(operation))
        }
    }

    /// Sends packed commands on the publisher's link of the node that holds a key. Follows redirects,
    /// and does not wait for a server that is not ready.
    pub(super) async fn try_now(
        &self,
        operation: &'static str,
        key: &str,
        packed: &[u8],
        commands: usize,
    ) -> Result<Replies, Error> {
        self.nodes.ready(operation).await?;
        self.send(
            operation,
            key,
            || packed.to_vec(),
            commands,
            Kind::Impatient,
        )
        .await
    }

    /// Sends packed commands on the link that reads for operators.
    pub(super) async fn look(
        &self,
        operation: &'static str,
        key: &str,
        packed: Vec<u8>,
        commands: usize,
    ) -> Result<Replies, Error> {
        self.nodes.ready(operation).await?;
        let pack = || packed.clone();
        self.send(operation, key, pack, commands, Kind::Looker)
            .await
    }

    /// Sends packed reads on the connection that subscriptions share, and returns the reply to the last one. None may
    /// block.
    ///
    /// Where the doorbell hears the node, the server watches the keys of those commands that only read: the
    /// second value says so.
    pub(super) async fn read(
        &self,
        operation: &'static str,
        key: &str,
        packed: &[u8],
        commands: usize,
    ) -> Result<(Bytes, bool), Error> {
        self.nodes.ready(operation).await?;
        let node = self.nodes.owner(self.nodes.slot(key));
        // The semaphore is never closed.
        let _turn = node.reads.acquire().await;
        let is_watched = AtomicBool::new(false);
        let kind = Kind::Reader(&is_watched);
        let replies = self.send(operation, key, || packed.to_vec(), commands, kind);
        let mut replies = replies.await?;
        let are_done = replies.iter().all(Result::is_ok);
        let missing = || Err(reply::unexpected("no reply"));
        let reply = replies.pop().unwrap_or_else(missing);
        let reply = reply.map_err(|e| error::sent(operation, e))?;
        Ok((reply, are_done && is_watched.into_inner()))
    }

    /// Listens for changes of keys, until nobody hears.
    pub(super) fn listen(&self, hears: Weak<dyn Hears>) -> impl Future<Output = ()> + Send + use<> {
        routing::bell::listen(Arc::clone(&self.nodes), hears)
    }

    /// Sends packed commands on a link, and again while one of them was certainly not done. The
    /// commands must allow that.
    async fn send(
        &self,
        operation: &'static str,
        key: &str,
        pack: impl Fn() -> Vec<u8>,
        commands: usize,
        kind: Kind<'_>,
    ) -> Result<Replies, Error> {
        let nodes = &*self.nodes;
        let limit = match kind {
            Kind::Publisher => PUBLISH_LIMIT,
            Kind::Looker | Kind::Impatient | Kind::Reader(_) => CALL_LIMIT,
        };
        let mut attempts = Attempts::new(nodes.slot(key), limit);
        loop {
            let (node, asking) = attempts.node(nodes);
            let (packed, step) = if asking {
                (commands::asking_each(&pack()), 2)
            } else {
                (pack(), 1)
            };
            let count = step * commands;
            let answer = match kind {
                Kind::Publisher | Kind::Impatient => node.publisher.send(packed, count).await,
                Kind::Looker => node.looker.send(packed, count).await,
                Kind::Reader(is_watched) => {
                    let (answer, is_heard) = node.read(packed, count).await;
                    // A node that only takes a slot over is not the one to tell of its keys.
                    is_watched.store(is_heard && !asking, Ordering::Relaxed);
                    answer
                }
            };
            let answer = answer.map(|replies| -> Replies {
                replies.into_iter().skip(step - 1).step_by(step).collect()
            });
            let reason = match &answer {
                Ok(replies) => {
                    let mut judged = kind.judged(replies).iter();
                    judged.find_map(|one| undone(one.as_ref().err()?))
                }
                Err(commands::Failure::NotSent(_, cause)) if cause.is_passing() => {
                    Some(Undone::Unreachable)
                }
                Err(_) => None,
            };
            let reason = reason.filter(|reason| {
                let redirect = matches!(reason, Undone::Moved { .. } | Undone::Ask { .. });
                redirect || !matches!(kind, Kind::Impatient)
            });
            if let Some(reason) = reason
                && attempts.prepare(nodes, &node, &reason).await
            {
                continue;
            }
            let clustered = nodes.is_clustered();
            let in_vain = |cause| {
                if clustered {
                    error::in_vain(cause)
                } else {
                    cause
                }
            };
            if !matches!(answer, Ok(ref replies) if kind.judged(replies).iter().all(Result::is_ok))
            {
                // The server may have been replaced.
                nodes.refresh();
            }
            return match answer {
                Ok(replies) => Ok(replies
                    .into_iter()
                    .map(|one| one.map_err(in_vain))
                    .collect()),
                Err(failure) => Err(failure.into_error(operation)),
            };
        }
    }

    /// Calls a script on the publisher's link, and loads it first where the server does not know it.
    pub(super) async fn publish_by(
        &self,
        operation: &'static str,
        call: &Call,
    ) -> Result<Bytes, Error> {
        self.nodes.ready(operation).await?;
        let ask = async || {
            let (key, pack) = (call.first_key(), || call.packed());
            let answer = self.send(operation, key, pack, 1, Kind::Publisher);
            let missing = || error::sent(operation, reply::unexpected("no reply"));
            answer.await?.pop().ok_or_else(missing)
        };
        match ask().await? {
            Err(unknown) if scripts::is_unknown(&unknown) => {}
            answer => return answer.map_err(|e| error::sent(operation, e)),
        }
        self.load(operation, call).await?;
        ask().await?.map_err(|e| error::sent(operation, e))
    }

    /// Loads a script on the node that owns its first key, and on every other one that answers soon,
    /// because the key may move there meanwhile. Succeeds where one node has loaded it.
    pub(in crate::adapters::redis::net) async fn load(
        &self,
        operation: &'static str,
        call: &Call,
    ) -> Result<(), Error> {
        let owner = self.nodes.owner(self.nodes.slot(call.first_key()));
        let load = async |node: Arc<Node>| {
            let answer = node.publisher.send(call.packed_load(), 1).await;
            let mut replies = answer.map_err(|failure| failure.into_error(operation))?;
            let missing = || Err(reply::unexpected("no reply"));
            let reply = replies.pop().unwrap_or_else(missing);
            reply.map_err(|e| error::not_done(operation, e)).map(drop)
        };
        let others = self.nodes.all().into_iter();
        let others = others.filter(|node| !Arc::ptr_eq(node, &owner));
        let others = others.map(|node| async {
            let loaded = timeout(LOADED_WITHIN, load(node)).await;
            loaded.is_ok_and(|loaded| loaded.is_ok())
        });
        let others = futures_util::future::join_all(others);
        let (loaded, others) = tokio::join!(load(Arc::clone(&owner)), others);
        match loaded {
            Err(_) if others.contains(&true) => Ok(()),
            // The script has not run, so nothing is published, whatever becomes of the loading.
            Err(failure) if failure.kind() == ErrorKind::OutcomeUnknown => {
                let rule = "its script could not be loaded; nothing was published";
                Err(Error::new(ErrorKind::Unavailable, operation, rule).because(failure))
            }
            loaded => loaded,
        }
    }

    /// The slot of a key; `None` where one server holds all keys.
    pub(super) fn slot(&self, key: &str) -> Option<u16> {
        self.is_clustered().then(|| self.nodes.slot(key))
    }

    /// The address of the node of a cluster that holds a key; `None` where one server holds all keys, and
    /// where no node serves the key's slot.
    pub(super) async fn address_of(
        &self,
        operation: &'static str,
        key: &str,
    ) -> Result<Option<String>, Error> {
        if !self.is_clustered() {
            return Ok(None);
        }
        self.nodes.ready(operation).await?;
        let routes = self.nodes.routes();
        let holder = routes.map.holder(self.nodes.slot(key));
        Ok(holder.map(|node| node.address().to_string()))
    }

    /// Whether one command may name both keys.
    pub(super) fn share_a_slot(&self, one: &str, other: &str) -> bool {
        self.nodes.slot(one) == self.nodes.slot(other)
    }

    /// Opens a connection for blocking reads of a key's stream.
    pub(super) async fn open_reader(
        &self,
        operation: &'static str,
        key: &str,
        name: &str,
    ) -> Result<(ReaderConnection, Unblock), Error> {
        self.nodes.ready(operation).await?;
        ReaderConnection::open(&self.nodes, operation, key, name).await
    }
}
