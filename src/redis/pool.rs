//! The base client's pool: key-value operations, scripts, administration.

use std::fmt;
use std::time::Duration;

use bb8_redis::bb8;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};

use super::error;
use crate::domain::{Error, ErrorKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A pooled connection that remembers that it failed.
///
/// The stock `bb8-redis` manager never calls a connection broken and so hands a dead one
/// out again, and it pings at every checkout to make up for that: two commands for one.
pub(super) struct Pooled {
    connection: MultiplexedConnection,
    broken: bool,
}

pub(super) struct Manager {
    client: Client,
}

impl bb8::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = RedisError;

    async fn connect(&self) -> Result<Pooled, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg("redstart:base")
            .exec_async(&mut connection)
            .await?;
        Ok(Pooled {
            connection,
            broken: false,
        })
    }

    async fn is_valid(&self, pooled: &mut Pooled) -> Result<(), RedisError> {
        redis::cmd("PING").exec_async(&mut pooled.connection).await
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.broken
    }
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    pool: bb8::Pool<Manager>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Prepares a pool; connections are made when they are needed.
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        // The cause is left out: it may quote the URL, and with it the password.
        let client = Client::open(url).map_err(|_| {
            Error::new(
                ErrorKind::Invalid,
                "connect",
                "the Redis URL cannot be parsed",
            )
        })?;
        let pool = bb8::Pool::builder()
            .max_size(8)
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            // Without this, a refused connection is tried in vain until the checkout times out.
            .retry_connection(false)
            .build_unchecked(Manager { client });
        Ok(Self { pool })
    }

    /// Runs one exchange on a connection; one that fails below the protocol is not used again.
    ///
    /// A connection that died while it lay in the pool is noticed only here. Where that
    /// happens the outcome is unknown, and the caller is told so.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        exchange: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Error> {
        let mut pooled = self.pool.get().await.map_err(|failed| match failed {
            bb8::RunError::User(cause) => error::not_sent(operation, cause),
            bb8::RunError::TimedOut => Error::new(
                ErrorKind::Unavailable,
                operation,
                "no connection became free in 5 s",
            ),
        })?;
        // Set beforehand: a future dropped in the middle must not leave a half-used connection.
        pooled.broken = true;
        let result = exchange(&mut pooled.connection).await;
        pooled.broken = result.as_ref().is_err_and(|e| {
            e.is_io_error() || e.is_unrecoverable_error() || e.kind() == redis::ErrorKind::Parse
        });
        result.map_err(|cause| error::sent(operation, cause))
    }
}
