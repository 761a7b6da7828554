//! A connection that many tasks share and that comes back after a failure.

use std::sync::{PoisonError, RwLock};

use redis::aio::MultiplexedConnection;

use super::error;
use super::server::{RESPONSE_TIMEOUT, Server};
use crate::domain::Error;

/// One multiplexed connection, made when it is needed.
///
/// `ConnectionManager` neither reconnects after a timeout nor says whether a command was
/// sent. Here whoever finds the connection broken discards it, and the next one in need
/// makes a new one, while the others wait for the same attempt.
#[derive(Debug)]
pub(super) struct Link {
    server: Server,
    name: &'static str,
    current: RwLock<Option<Leased>>,
    connecting: tokio::sync::Mutex<u64>,
}

/// A connection and which one it is.
#[derive(Clone, Debug)]
pub(super) struct Leased {
    pub(super) connection: MultiplexedConnection,
    generation: u64,
}

impl Link {
    pub(super) fn new(server: Server, name: &'static str) -> Self {
        Self {
            server,
            name,
            current: RwLock::new(None),
            connecting: tokio::sync::Mutex::new(0),
        }
    }

    fn current(&self) -> Option<Leased> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The connection. An error means that nothing was sent.
    pub(super) async fn get(&self, operation: &'static str) -> Result<Leased, Error> {
        if let Some(leased) = self.current() {
            return Ok(leased);
        }
        let mut generation = self.connecting.lock().await;
        if let Some(leased) = self.current() {
            return Ok(leased);
        }
        let connection = self
            .server
            .connect(self.name, Some(RESPONSE_TIMEOUT))
            .await
            .map_err(|e| error::not_sent(operation, e))?;
        if *generation > 0 {
            metrics::counter!("redstart_reconnects_total", "connection" => self.name).increment(1);
        }
        *generation += 1;
        let leased = Leased {
            connection,
            generation: *generation,
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(leased.clone());
        Ok(leased)
    }

    /// Gives up a connection that failed, unless another has taken its place already.
    pub(super) fn discard(&self, broken: &Leased) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|held| held.generation == broken.generation)
        {
            *current = None;
        }
    }
}
