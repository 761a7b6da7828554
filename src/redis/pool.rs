//! The base client's pool: key-value operations, scripts, administration.

use std::convert::Infallible;
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

/// A place in the pool: a connection, once one was needed and while it is sound.
///
/// The stock `bb8-redis` manager never calls a connection broken and so hands a dead one
/// out again, and it pings at every checkout to make up for that: two commands for one.
/// And bb8 keeps the cause of a failed connect from those who wait for it, until their
/// checkout times out. So bb8 hands out places, and who holds one connects it.
type Place = Option<MultiplexedConnection>;

struct Places;

impl bb8::ManageConnection for Places {
    type Connection = Place;
    type Error = Infallible;

    async fn connect(&self) -> Result<Place, Infallible> {
        Ok(None)
    }

    async fn is_valid(&self, _: &mut Place) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Place) -> bool {
        false
    }
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    places: bb8::Pool<Places>,
    client: Client,
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
        let places = bb8::Pool::builder()
            .max_size(8)
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            .build_unchecked(Places);
        Ok(Self { places, client })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
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
        Ok(connection)
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
        let mut place = self.places.get().await.map_err(|_| {
            let rule = "all 8 connections were busy for 5 s";
            Error::new(ErrorKind::Unavailable, operation, rule)
        })?;
        // Taken out for the time of the exchange: a future that is dropped in the middle
        // leaves an empty place, not a connection with a reply that nobody read.
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => self
                .connect()
                .await
                .map_err(|e| error::not_sent(operation, e))?,
        };
        let result = exchange(&mut connection).await;
        let sound = result.as_ref().err().is_none_or(|e| {
            !e.is_io_error() && !e.is_unrecoverable_error() && e.kind() != redis::ErrorKind::Parse
        });
        if sound {
            *place = Some(connection);
        }
        result.map_err(|cause| error::sent(operation, cause))
    }
}
