//! A server, and the connections to it that callers share.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::durable::Durable;
use super::ear::Ear;
use crate::adapters::redis::net::commands::{Answer, Failure, TakesBack};
use crate::adapters::redis::net::connections::link::Link;
use crate::adapters::redis::net::connections::natives::Natives;
use crate::adapters::redis::net::connections::pool::Pool;
use crate::adapters::redis::net::connections::server::Server;
use crate::domain::NativeCommands;

/// How long a node without slots stays known after a redirect to it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How many reads may be under way on the shared connection. The server carries out all that it has
/// received before it turns to another client.
const READS: usize = 64;

/// A server, and the connections to it that callers share.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Node {
    pub(in crate::adapters::redis::net) server: Server,
    pub(in crate::adapters::redis::net) pool: Pool,
    pub(in crate::adapters::redis::net) publisher: Link,
    /// The native commands that publishes may use.
    pub(in crate::adapters::redis::net) natives: Arc<Natives>,
    /// Reads for operators, whose long replies must not delay the publisher.
    pub(in crate::adapters::redis::net) looker: Link,
    /// Carries the reads of subscriptions that share a connection, while no doorbell hears this node. None of
    /// them blocks.
    reader: Link,
    /// The connection that carries them otherwise, of each runtime.
    ears: Mutex<Vec<(runtime::Id, Ear)>>,
    /// One for each of these reads that may be under way. The waiting ones take turns.
    pub(in crate::adapters::redis::net) reads: Semaphore,
    /// Publishes that wait until they are durable, which must not delay the others.
    pub(in crate::adapters::redis::net) durable: Durable,
    /// Cancelled when another node has taken all slots over.
    left: CancellationToken,
    /// When a redirect last named the node.
    named: Mutex<Option<Instant>>,
}

impl Node {
    /// Prepares the connections; each is made when it is first used.
    pub(in crate::adapters::redis::net) fn new(
        server: Server,
        takes_back: &Weak<impl TakesBack + 'static>,
        native: NativeCommands,
    ) -> Self {
        let takes_back: Weak<dyn TakesBack> = takes_back.clone();
        let left = CancellationToken::new();
        let link = |name| Link::new(server.clone(), name, takes_back.clone(), left.clone());
        let natives = Arc::new(Natives::new(native));
        Self {
            pool: Pool::new(server.clone(), left.clone()),
            publisher: link("redstart:pub").asking(&natives),
            looker: link("redstart:look"),
            durable: Durable::new(link("redstart:durable").asking(&natives)),
            reader: link("redstart:read"),
            ears: Mutex::default(),
            reads: Semaphore::new(READS),
            natives,
            left,
            named: Mutex::new(None),
            server,
        }
    }

    pub(in crate::adapters::redis::net) fn address(&self) -> &Arc<str> {
        self.server.address()
    }

    /// Sends packed reads on the connection of the current runtime's doorbell, if it hears this node. Returns
    /// the answer and whether that connection has carried them.
    pub(in crate::adapters::redis::net) async fn read(
        &self,
        packed: Vec<u8>,
        count: usize,
    ) -> (Answer, bool) {
        if let Some(ear) = self.ear() {
            match ear.send(packed.clone(), count).await {
                // It has ended just now.
                Err(Failure::NotSent(..)) => {}
                answer => return (answer, true),
            }
        }
        (self.reader.send(packed, count).await, false)
    }

    /// The doorbell's connection of the current runtime to this node, while it hears.
    fn ear(&self) -> Option<Ear> {
        let here = runtime::Handle::try_current().ok()?.id();
        let ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, ear) = ears.iter().find(|(id, _)| *id == here)?;
        Some(ear.clone())
    }

    /// Sets that connection.
    pub(super) fn set_ear(&self, ear: &Ear) {
        let here = runtime::Handle::current().id();
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        ears.retain(|(id, _)| *id != here);
        ears.push((here, ear.clone()));
    }

    /// Takes a connection away that has ended.
    pub(super) fn remove_ear(&self, ear: &Ear) {
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        ears.retain(|(_, known)| !known.is(ear));
    }

    /// Ends the reads at a node that serves nothing any more. It may be out of reach and never say so.
    pub(in crate::adapters::redis::net) fn leave(&self) {
        self.left.cancel();
    }

    /// Waits until the node serves nothing any more.
    pub(in crate::adapters::redis::net) async fn is_left(&self) {
        self.left.cancelled().await;
    }

    /// Notes that a redirect named the node.
    pub(in crate::adapters::redis::net) fn note_redirect(&self) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named = Some(Instant::now());
    }

    /// Whether a redirect named the node lately.
    pub(in crate::adapters::redis::net) fn is_fresh(&self) -> bool {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.is_some_and(|at| at.elapsed() < KEPT_FOR)
    }
}
