//! The server and how to connect to it: the one place where connections are made.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo as _, RedisError, ServerErrorKind,
};

use super::socket::{Socket, within};
use super::stream;
use super::tls::{Tls, TlsSettings};
use crate::domain::{Error, ErrorKind};

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take, where nothing waits for messages.
pub(in crate::adapters::redis) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many commands wait in the client before senders do.
const PIPELINE_BUFFER: usize = 1024;

/// A server's address and credentials. Cheap to clone.
#[derive(Clone)]
pub(in crate::adapters::redis) struct Server {
    info: Arc<ConnectionInfo>,
    tls: Option<Tls>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The information has the password.
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    pub(in crate::adapters::redis) fn new(url: &str, tls: &TlsSettings) -> Result<Self, Error> {
        let invalid = |rule: &str| Error::new(ErrorKind::Invalid, "Redis URL", rule);
        // TLS is this adapter's own: the parser gets to see the address beneath it.
        let (plain, encrypted) = match url.strip_prefix("rediss://") {
            Some(rest) => (Cow::Owned(format!("redis://{rest}")), true),
            None => (Cow::Borrowed(url), false),
        };
        // The cause is left out: it may quote the URL, and with it the password.
        let info = plain.into_connection_info().map_err(|_| {
            invalid(
                "must be redis:// or rediss://[user:password@]host[:port][/database], or \
                 unix:///path; symbols of a user or password are percent-encoded",
            )
        })?;
        let tls = match (encrypted, tls.is_empty()) {
            (true, _) if url.contains('#') => {
                return Err(invalid("has no `#` part: certificates are always checked"));
            }
            (true, _) => Some(Tls::new(tls)?),
            (false, true) => None,
            (false, false) => return Err(invalid("must be rediss:// where TLS is set up")),
        };
        // The connection has a name. What the client would add costs a command that older
        // servers do not know and that every role would need the right to.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = Arc::new(info.set_redis_settings(settings));
        Ok(Self { info, tls })
    }

    /// Connects under a name that `CLIENT LIST` shows. Without a response timeout the caller
    /// keeps its own watch.
    pub(in crate::adapters::redis) async fn connect(
        &self,
        name: &str,
        response_timeout: Option<Duration>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(response_timeout)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        // The connection's timeout does not cover the handshake with a server that accepts
        // and then says nothing.
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            let settings = self.info.redis_settings();
            let (mut connection, traffic) =
                MultiplexedConnection::new_with_config(settings, stream, config).await?;
            // Ends with the last clone of the connection.
            tokio::spawn(traffic);
            redis::cmd("CLIENT")
                .arg("SETNAME")
                .arg(name)
                .exec_async(&mut connection)
                .await?;
            Ok(connection)
        };
        within(2 * CONNECT_TIMEOUT, connecting).await
    }

    /// Connects a socket whose replies are read in place.
    pub(in crate::adapters::redis) async fn connect_socket(
        &self,
        name: &str,
    ) -> Result<Socket, RedisError> {
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            Socket::begin(stream, self.info.redis_settings(), name).await
        };
        within(2 * CONNECT_TIMEOUT, connecting).await
    }
}

/// Whether a URL can be used.
#[cfg(feature = "testing")]
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    Server::new(url, &TlsSettings::new()).map(drop)
}

/// Whether a connection can be used again after an error.
pub(in crate::adapters::redis) fn is_sound(error: &RedisError) -> bool {
    !error.is_io_error()
        && !error.is_unrecoverable_error()
        && error.kind() != redis::ErrorKind::Parse
        // After a failover the old server keeps its connections and serves nothing on them.
        && !matches!(
            error.kind(),
            redis::ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}
