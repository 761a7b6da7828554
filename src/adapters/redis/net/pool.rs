//! The base client's pool: key-value operations, scripts, administration.

use std::convert::Infallible;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::error::{self, is_sound};
use super::server::Server;
use crate::domain::{Error, ErrorKind};

const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// A place in the pool: a connection, once one was needed and while it is sound.
///
/// The stock `bb8-redis` manager never calls a connection broken and so hands a dead one
/// out again, and it pings at every checkout to make up for that: two commands for one.
/// And bb8 keeps the cause of a failed connect from those who wait for it, until their
/// checkout times out. So bb8 hands out places, and who holds one connects it.
type Place = Option<MultiplexedConnection>;

#[derive(Debug)]
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
#[derive(Clone, Debug)]
pub(in crate::adapters::redis) struct Pool {
    places: bb8::Pool<Places>,
    server: Server,
}

impl Pool {
    /// Prepares a pool; connections are made when they are needed.
    pub(in crate::adapters::redis) fn new(server: Server) -> Self {
        let places = bb8::Pool::builder()
            .max_size(8)
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            .build_unchecked(Places);
        Self { places, server }
    }

    /// Runs one exchange on a connection; one that fails below the protocol is not used again.
    ///
    /// A connection that died while it lay in the pool is noticed only here. Where that
    /// happens the outcome is unknown, and the caller is told so.
    pub(in crate::adapters::redis) async fn run<T>(
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
                .server
                .connect("redstart:base")
                .await
                .map_err(|failure| {
                    error::no_connection(operation, self.server.address(), failure)
                })?,
        };
        let result = exchange(&mut connection).await;
        if result.as_ref().err().is_none_or(is_sound) {
            *place = Some(connection);
        }
        result.map_err(|cause| error::sent(operation, cause))
    }
}
