//! The base client's pool: key-value operations, scripts, administration.

use std::convert::Infallible;
use std::time::Duration;

use redis::RedisError;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::server::{Pooled, Server};
use crate::adapters::redis::net::error::{self, NoConnection, is_sound};
use crate::domain::{Error, ErrorKind};

const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);
const SIZE: u32 = 8;

/// What bb8 pools: room for one connection, empty until someone connects it.
///
/// bb8 only limits how many connections exist and queues the callers. [`Pool::run`] connects, and
/// so decides itself when a connection is broken. The manager of `bb8-redis` cannot do that: it
/// calls no connection broken, so it hands a dead one out again, and it pings at each checkout to
/// make up for it, which doubles the commands. And bb8 hides why a connect failed until the
/// checkout times out.
type Slot = Option<Pooled>;

#[derive(Debug)]
struct Slots;

impl bb8::ManageConnection for Slots {
    type Connection = Slot;
    type Error = Infallible;

    async fn connect(&self) -> Result<Slot, Infallible> {
        Ok(None)
    }

    async fn is_valid(&self, _: &mut Slot) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Slot) -> bool {
        false
    }
}

/// Why an exchange failed.
#[derive(Debug)]
pub(in crate::adapters::redis::net) enum Failure {
    /// No connection was free. Nothing was sent.
    Busy,
    /// Nothing was sent to the server.
    NotSent(NoConnection),
    /// At least a part was sent.
    Sent(RedisError),
}

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::adapters::redis) struct Pool {
    slots: bb8::Pool<Slots>,
    server: Server,
    /// Cancelled when the server serves nothing any more.
    left: CancellationToken,
}

/// The failure of an exchange with a server that another one has replaced.
fn left() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()
}

impl Pool {
    /// Prepares a pool. Callers connect its slots when they need them.
    pub(in crate::adapters::redis::net) fn new(server: Server, left: CancellationToken) -> Self {
        let slots = bb8::Pool::builder()
            .max_size(SIZE)
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            .build_unchecked(Slots);
        Self {
            slots,
            server,
            left,
        }
    }

    /// Runs one exchange on a connection, and drops a connection that fails below the protocol.
    ///
    /// A connection that died while it was idle is replaced before anything is sent on it. Where another
    /// server replaces this one meanwhile, the exchange ends: it has failed before it was sent, or its
    /// outcome is unknown.
    pub(in crate::adapters::redis::net) async fn run<T>(
        &self,
        asking: bool,
        exchange: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let connecting = self.left.run_until_cancelled(self.connected());
        let Some(connected) = connecting.await else {
            return Err(Failure::NotSent(left().into()));
        };
        let (mut slot, mut pooled) = connected?;
        let exchanging = self.left.run_until_cancelled(pooled.run(asking, exchange));
        let Some(result) = exchanging.await else {
            return Err(Failure::Sent(left()));
        };
        if result.as_ref().err().is_none_or(is_sound) {
            *slot = Some(pooled);
        }
        result.map_err(Failure::Sent)
    }

    /// A connection, and the slot to which it goes back.
    async fn connected(&self) -> Result<(bb8::PooledConnection<'_, Slots>, Pooled), Failure> {
        let mut slot = self.slots.get().await.map_err(|_| Failure::Busy)?;
        // The slot stays empty during the exchange. So a dropped future leaves an empty slot behind,
        // not a connection with an unread reply.
        let mut idle = slot.take().filter(|idle| !idle.is_dead());
        if let Some(pooled) = &mut idle
            && !pooled.is_driven().await
        {
            idle = None;
        }
        let pooled = match idle {
            Some(pooled) => pooled,
            None => {
                let connecting = self.server.connect("redstart:base");
                connecting.await.map_err(Failure::NotSent)?
            }
        };
        Ok((slot, pooled))
    }

    /// The error of an operation that failed on this pool.
    pub(in crate::adapters::redis::net) fn error(
        &self,
        operation: &'static str,
        failure: Failure,
    ) -> Error {
        match failure {
            Failure::Busy => {
                let rule = format!("all {SIZE} connections were busy for {CHECKOUT_TIMEOUT:?}");
                Error::new(ErrorKind::Unavailable, operation, rule)
            }
            Failure::NotSent(cause) => {
                error::no_connection(operation, self.server.address(), cause)
            }
            Failure::Sent(cause) => error::sent(operation, cause),
        }
    }
}
