//! A server's address and credentials. All connections are made here.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::Socket as Socket2;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisConnectionInfo, RedisError};
use tokio::runtime;
use tokio::task::JoinHandle;

use super::error::NoConnection;
use super::progress::{Counted, Progress};
use super::socket::{Socket, timed_out, within};
use super::tls::{Tls, TlsSettings};
use super::url::{self, Target};
use super::{address, handshake, stream};
use crate::domain::{Error, ErrorKind};

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take, except that of a blocking read.
pub(in crate::adapters::redis) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection of another runtime may take to show that it works.
const DRIVEN_WITHIN: Duration = Duration::from_secs(1);
/// How many commands the client queues before its callers wait.
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
        let Target { info, encrypted } = url::read(url)?;
        let tls = match (encrypted, tls.is_empty()) {
            (true, _) => Some(Tls::new(tls)?),
            (false, true) => None,
            (false, false) => {
                let rule = "must be rediss:// where TLS is set up";
                return Err(Error::new(ErrorKind::Invalid, "Redis URL", rule));
            }
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
    ) -> Result<Pooled, NoConnection> {
        let stream = self.connect_socket(name).await?.into_stream()?;
        let socket = stream.socket().try_clone()?;
        let (stream, progress) = Counted::new(stream);
        // The pool limits how long the server may be silent.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        // The handshake is done. What the crate would add to it costs commands that older servers
        // do not know and that every role would need the right to.
        let none = RedisConnectionInfo::default().set_skip_set_lib_name();
        let making = MultiplexedConnection::new_with_config(&none, stream, config);
        let (connection, traffic) = within(CONNECT_TIMEOUT, making).await?;
        Ok(Pooled {
            connection,
            socket,
            // Ends with the last clone of the connection.
            traffic: tokio::spawn(traffic),
            progress,
            runtime: runtime::Handle::current().id(),
        })
    }

    /// Connects a socket whose replies are read in place. After a failure that new TLS files may
    /// mend, tries once more with them.
    pub(in crate::adapters::redis) async fn connect_socket(
        &self,
        name: &str,
    ) -> Result<Socket, NoConnection> {
        match self.open(name).await {
            Err(_) if self.tls.as_ref().is_some_and(Tls::has_changed) => self.open(name).await,
            opened => opened,
        }
    }

    async fn open(&self, name: &str) -> Result<Socket, NoConnection> {
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            let mut socket = Socket::new(stream);
            let settings = self.info.redis_settings();
            for (step, command) in handshake::steps(settings, name) {
                let answer = socket.introduce(&command).await;
                answer.map_err(|cause| handshake::failed(step, cause, settings))?;
            }
            Ok(socket)
        };
        // Covers a server that accepts and then stays silent, too.
        within(2 * CONNECT_TIMEOUT, connecting).await
    }
}

/// A connection for the pool.
pub(super) struct Pooled {
    connection: MultiplexedConnection,
    socket: Socket2,
    /// Carries the connection's commands and replies. It ends with the runtime that spawned it.
    traffic: JoinHandle<()>,
    progress: Progress,
    runtime: runtime::Id,
}

impl Pooled {
    /// Whether the idle connection has died.
    pub(super) fn is_dead(&self) -> bool {
        self.traffic.is_finished() || stream::is_closed(&self.socket)
    }

    /// Runs an exchange, however long its reply takes, unless the server is silent for a time.
    pub(super) async fn run<T>(
        &mut self,
        exchange: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let mut exchange = pin!(exchange(&mut self.connection));
        loop {
            let (before, began) = (self.progress.count(), Instant::now());
            match tokio::time::timeout(RESPONSE_TIMEOUT, exchange.as_mut()).await {
                Ok(answer) => return answer,
                Err(_) if self.progress.count() != before => {}
                Err(_) => return Err(timed_out(RESPONSE_TIMEOUT, began).into()),
            }
        }
    }

    /// Whether the connection can be used from this runtime. One that another runtime made is asked
    /// first: if nobody drives that runtime, no command would be sent.
    pub(super) async fn is_driven(&mut self) -> bool {
        if self.runtime == runtime::Handle::current().id() {
            return true;
        }
        let asking = redis::cmd("PING");
        let asked = asking.exec_async(&mut self.connection);
        tokio::time::timeout(DRIVEN_WITHIN, asked)
            .await
            .is_ok_and(|answer| answer.is_ok())
    }
}

/// Checks a URL.
#[cfg(feature = "testing")]
pub(crate) fn check_url(url: &str) -> Result<(), Error> {
    Server::new(url, &TlsSettings::new()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, Error> {
        Server::new(url, &TlsSettings::new())
    }

    #[test]
    fn tls_settings_need_an_encrypted_url() {
        let settings = TlsSettings::new().with_ca_file("ca.pem");
        let error = Server::new("redis://h", &settings).unwrap_err();
        assert!(error.to_string().contains("rediss://"), "{error}");
    }

    #[test]
    fn debug_shows_the_address_and_no_credentials() {
        let shown = format!("{:?}", server("redis://ann:secret@h:7000/3").unwrap());
        assert!(shown.contains("h:7000"), "{shown}");
        assert!(
            !shown.contains("ann") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
