//! Servers and connections. Nothing outside this folder knows how many servers there are.
//!
//! Every call names a key, and the server that holds this key runs the call. This folder also
//! decides how certain a failure is: not done, refused, or unknown.

mod address;
mod denial;
pub(super) mod error;
mod handshake;
mod link;
mod pool;
mod progress;
mod reader;
mod server;
mod socket;
mod stream;
mod tls;
mod url;

use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Value};

use super::resp::reply;
use super::scripts::{self, Call};
use crate::domain::{Error, ErrorKind};
use link::Link;
use pool::Pool;
use server::Server;

pub(super) use reader::{ReaderConnection, Unblock};
#[cfg(feature = "testing")]
pub(crate) use server::check_url;
pub(super) use socket::refusal_of;
pub use tls::TlsSettings;
pub(crate) use url::address_of;

/// All connections of one namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Net {
    node: Arc<Node>,
}

/// A server and the connections to it that callers share.
#[derive(Debug)]
struct Node {
    server: Server,
    pool: Pool,
    publisher: Link,
    /// Reads for operators, whose long replies must not delay the publisher.
    looker: Link,
}

impl Net {
    /// Prepares the connections; each is made when it is first used.
    pub(super) fn new(url: &str, tls: &TlsSettings) -> Result<Self, Error> {
        let server = Server::new(url, tls)?;
        let node = Node {
            pool: Pool::new(server.clone()),
            publisher: Link::new(server.clone(), "redstart:pub"),
            looker: Link::new(server.clone(), "redstart:look"),
            server,
        };
        Ok(Self {
            node: Arc::new(node),
        })
    }

    /// The server that holds a key. The only place where a key chooses a server: with one
    /// server, every key chooses it.
    fn node(&self, _key: &str) -> &Node {
        &self.node
    }

    /// Runs commands on a pooled connection. All their keys lie in the slot of `key`.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        key: &str,
        exchange: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        self.node(key).pool.run(operation, exchange).await
    }

    /// Runs commands whose keys lie in different slots; each names its own. Returns a reply for
    /// each, in the order of the commands.
    pub(super) async fn run_each<T: FromRedisValue>(
        &self,
        operation: &'static str,
        commands: Vec<(String, Cmd)>,
    ) -> Result<Vec<T>, Error> {
        let Some((first, _)) = commands.first() else {
            return Ok(Vec::new());
        };
        // One server holds all the keys, so one pipeline carries all the commands.
        let node = self.node(first);
        let mut pipeline = redis::pipe();
        for (_, command) in &commands {
            pipeline.add_command(command.clone());
        }
        node.pool
            .run(operation, async |connection| {
                pipeline.query_async(connection).await
            })
            .await
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

    /// Sends packed commands on the publisher's link, in the order of the calls to this function.
    pub(super) fn publish(
        &self,
        operation: &'static str,
        key: &str,
        packed: Vec<u8>,
        commands: usize,
    ) -> impl Future<Output = Result<link::Replies, Error>> + Send + use<> {
        self.node(key).publisher.send(operation, packed, commands)
    }

    /// Sends packed commands on the link that reads for operators.
    pub(super) fn look(
        &self,
        operation: &'static str,
        key: &str,
        packed: Vec<u8>,
        commands: usize,
    ) -> impl Future<Output = Result<link::Replies, Error>> + Send + use<> {
        self.node(key).looker.send(operation, packed, commands)
    }

    /// Calls a script on the publisher's link, and loads it first where the server does not know it.
    pub(super) async fn publish_by(
        &self,
        operation: &'static str,
        call: &Call,
    ) -> Result<Bytes, Error> {
        let ask = async |packed| {
            let mut replies = self.publish(operation, call.first_key(), packed, 1).await?;
            let missing = || error::sent(operation, reply::unexpected("no reply"));
            replies.pop().ok_or_else(missing)
        };
        match ask(call.packed()).await? {
            Err(unknown) if scripts::is_unknown(&unknown) => {}
            answer => return answer.map_err(|e| error::sent(operation, e)),
        }
        // The script has not run, so nothing is published, whatever becomes of the loading.
        match ask(call.packed_load()).await {
            Ok(answer) => drop(answer.map_err(|e| error::not_done(operation, e))?),
            Err(failure) if failure.kind() == ErrorKind::OutcomeUnknown => {
                let rule = "its script could not be loaded; nothing was published";
                return Err(Error::new(ErrorKind::Unavailable, operation, rule).because(failure));
            }
            Err(failure) => return Err(failure),
        }
        ask(call.packed())
            .await?
            .map_err(|e| error::sent(operation, e))
    }

    /// Opens a connection for blocking reads of a key's stream.
    pub(super) async fn open_reader(
        &self,
        operation: &'static str,
        key: &str,
        name: &str,
    ) -> Result<(ReaderConnection, Unblock), Error> {
        let node = self.node(key);
        reader::open(operation, &node.server, &node.pool, name).await
    }
}
