//! The server and how to connect to it: the one place where connections are made.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use super::error::NoConnection;
use super::socket::{Socket, within};
use super::tls::{Tls, TlsSettings};
use super::{address, handshake, stream};
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
    address: Arc<str>,
    tls: Option<Tls>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection information holds the password.
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
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
        let address = address::text(info.addr()).into();
        let info = Arc::new(info);
        Ok(Self { info, address, tls })
    }

    /// The address as errors show it.
    pub(in crate::adapters::redis) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Connects under a name that `CLIENT LIST` shows.
    pub(in crate::adapters::redis) async fn connect(
        &self,
        name: &str,
    ) -> Result<MultiplexedConnection, NoConnection> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        // The connection's own timeout does not cover a server that accepts and then stays silent.
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            // Our own handshake follows. What the crate would add to it costs commands that
            // older servers do not know and that every role would need the right to.
            let none = RedisConnectionInfo::default().set_skip_set_lib_name();
            let (mut connection, traffic) =
                MultiplexedConnection::new_with_config(&none, stream, config).await?;
            // Ends with the last clone of the connection.
            tokio::spawn(traffic);
            let settings = self.info.redis_settings();
            for (step, command) in handshake::steps(settings, name) {
                let answer = command.exec_async(&mut connection).await;
                answer.map_err(|cause| handshake::failed(step, cause, settings))?;
            }
            Ok(connection)
        };
        within(2 * CONNECT_TIMEOUT, connecting).await
    }

    /// Connects a socket whose replies are read in place.
    pub(in crate::adapters::redis) async fn connect_socket(
        &self,
        name: &str,
    ) -> Result<Socket, NoConnection> {
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            let mut socket = Socket::new(stream);
            let settings = self.info.redis_settings();
            for (step, command) in handshake::steps(settings, name) {
                let answer = socket.command(&command).await;
                answer.map_err(|cause| handshake::failed(step, cause, settings))?;
            }
            Ok(socket)
        };
        within(2 * CONNECT_TIMEOUT, connecting).await
    }
}

/// Whether a URL can be used.
#[cfg(feature = "testing")]
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    Server::new(url, &TlsSettings::new()).map(drop)
}
