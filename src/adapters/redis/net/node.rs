//! A server, and the connections to it that callers share.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::commands::TakesBack;
use super::link::Link;
use super::pool::Pool;
use super::server::Server;

/// How long a node without slots stays known after a redirect to it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A server, and the connections to it that callers share.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) pool: Pool,
    pub(super) publisher: Link,
    /// Reads for operators, whose long replies must not delay the publisher.
    pub(super) looker: Link,
    /// Cancelled when another node has taken all slots over.
    left: CancellationToken,
    /// When a redirect last named the node.
    named: Mutex<Option<Instant>>,
}

impl Node {
    /// Prepares the connections; each is made when it is first used.
    pub(super) fn new(server: Server, takes_back: &Weak<impl TakesBack + 'static>) -> Self {
        let takes_back: Weak<dyn TakesBack> = takes_back.clone();
        let left = CancellationToken::new();
        let link = |name| Link::new(server.clone(), name, takes_back.clone(), left.clone());
        Self {
            pool: Pool::new(server.clone()),
            publisher: link("redstart:pub"),
            looker: link("redstart:look"),
            left,
            named: Mutex::new(None),
            server,
        }
    }

    pub(super) fn address(&self) -> &Arc<str> {
        self.server.address()
    }

    /// Ends the reads at a node that serves nothing any more. It may be out of reach and never say so.
    pub(super) fn leave(&self) {
        self.left.cancel();
    }

    /// Waits until the node serves nothing any more.
    pub(super) async fn is_left(&self) {
        self.left.cancelled().await;
    }

    /// Notes that a redirect named the node.
    pub(super) fn note_redirect(&self) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named = Some(Instant::now());
    }

    /// Whether a redirect named the node lately.
    pub(super) fn is_fresh(&self) -> bool {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.is_some_and(|at| at.elapsed() < KEPT_FOR)
    }
}
