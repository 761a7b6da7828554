//! The server and how to connect to it: the one place where connections are made.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, ServerErrorKind};

use super::socket::{Socket, within};
use crate::domain::{Error, ErrorKind};

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take, where nothing waits for messages.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many commands wait in the client before senders do.
const PIPELINE_BUFFER: usize = 1024;

/// A server's address and credentials. Cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client knows the password.
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        // The cause is left out: it may quote the URL, and with it the password.
        let invalid = |_: RedisError| {
            let rule = "must be redis://[user:password@]host[:port][/database] or unix:///path";
            Error::new(ErrorKind::Invalid, "Redis URL", rule)
        };
        let info = url.into_connection_info().map_err(invalid)?;
        // Both are off by default: small writes would wait for acknowledgements, and a peer
        // that vanished would never be noticed on a connection that only reads.
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive());
        // The connection has a name. What the client would add costs a command that older
        // servers do not know and that every role would need the right to.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self {
            client: Client::open(info).map_err(invalid)?,
        })
    }

    /// Connects under a name that `CLIENT LIST` shows. Without a response timeout the caller
    /// keeps its own watch.
    pub(super) async fn connect(
        &self,
        name: &str,
        response_timeout: Option<Duration>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response_timeout)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        // The connection's timeout does not cover the handshake with a server that accepts
        // and then says nothing.
        let connecting = async {
            let mut connection = self
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
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
    pub(super) async fn connect_socket(&self, name: &str) -> Result<Socket, RedisError> {
        within(2 * CONNECT_TIMEOUT, Socket::connect(&self.client, name)).await
    }
}

/// Notices a peer that vanished after some 30 seconds.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
}

/// Whether a connection can be used again after an error.
pub(super) fn is_sound(error: &RedisError) -> bool {
    !error.is_io_error()
        && !error.is_unrecoverable_error()
        && error.kind() != redis::ErrorKind::Parse
        // After a failover the old server keeps its connections and serves nothing on them.
        && !matches!(
            error.kind(),
            redis::ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}
