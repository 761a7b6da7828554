//! A server's address and credentials. All connections are made here.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::Socket as Socket2;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError,
};
use tokio::runtime;
use tokio::task::JoinHandle;

use super::access::{self, Access};
use super::connection::Connection;
use super::progress::{Counted, Progress};
use super::socket::{Socket, timed_out, within};
use super::tls::Tls;
use super::url::{self, Kind, Target};
use super::{address, handshake, stream};
use crate::adapters::redis::net::error::{NoConnection, Step};
use crate::domain::{Error, ErrorKind, NativeCommands};

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
    /// The service of which this server must be the primary. A sentinel can still name a former primary.
    primary_of: Option<Arc<str>>,
}

/// What a URL names.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Found {
    /// One server, some nodes of a cluster, or sentinels.
    pub(in crate::adapters::redis::net) servers: Vec<Server>,
    pub(in crate::adapters::redis::net) layout: Layout,
    /// The native commands that are switched on.
    pub(in crate::adapters::redis::net) native: NativeCommands,
}

/// How the servers behind a URL hang together.
#[derive(Debug)]
pub(in crate::adapters::redis::net) enum Layout {
    /// One server holds all keys.
    Single,
    /// The nodes of a cluster share the slots.
    Cluster,
    /// One server holds all keys, and sentinels say which. This is that server, still without its
    /// address.
    Sentinels(Server),
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
    /// Reads a URL: the servers that it names, and how they hang together.
    pub(in crate::adapters::redis::net) fn read(
        url: &str,
        access: &Access,
    ) -> Result<Found, Error> {
        let Target {
            mut infos,
            encrypted,
            kind,
        } = url::read(url)?;
        let tls = match (encrypted, access.tls.is_empty()) {
            (true, _) => Some(Tls::new(&access.tls)?),
            (false, true) => None,
            (false, false) => {
                let rule = "must be rediss:// where TLS is set up";
                return Err(Error::new(ErrorKind::Invalid, "Redis URL", rule));
            }
        };
        let layout = match kind {
            Kind::Server => Layout::Single,
            Kind::Cluster => Layout::Cluster,
            Kind::Sentinels { service, settings } => {
                let login = access.sentinel.settings()?;
                let log_in = |info: ConnectionInfo| info.set_redis_settings(login.clone());
                infos = infos.into_iter().map(log_in).collect();
                let nowhere = ConnectionAddr::Tcp(String::new(), 0);
                let info = nowhere.into_connection_info();
                let info =
                    info.map_err(|e| Error::new(ErrorKind::Invalid, "Redis URL", e.to_string()))?;
                Layout::Sentinels(Self {
                    address: format!("the primary of {service}").into(),
                    info: Arc::new(info.set_redis_settings(settings)),
                    tls: tls.clone(),
                    primary_of: Some(service.into()),
                })
            }
        };
        if !access.sentinel.is_empty() && !matches!(layout, Layout::Sentinels(_)) {
            return Err(access::invalid(
                "hold a log-in, and the URL names no sentinels: those begin with redis+sentinel://",
            ));
        }
        let servers = infos.into_iter().map(|info| Self {
            address: address::text(info.addr()).into(),
            info: Arc::new(info),
            tls: tls.clone(),
            primary_of: None,
        });
        Ok(Found {
            servers: servers.collect(),
            layout,
            native: access.native,
        })
    }

    /// The service whose primary it must be.
    pub(in crate::adapters::redis::net) fn service(&self) -> Option<&Arc<str>> {
        self.primary_of.as_ref()
    }

    /// Whether the server has an address. The primary of a service has none until a sentinel names it.
    fn is_known(&self) -> bool {
        !matches!(self.info.addr(), ConnectionAddr::Tcp(_, 0))
    }

    /// Another server that takes the same credentials and settings. Without a host it is on the
    /// host of this one.
    pub(in crate::adapters::redis::net) fn at(&self, host: Option<&str>, port: u16) -> Self {
        let own = match self.info.addr() {
            ConnectionAddr::Tcp(host, _) => host,
            _ => "",
        };
        let host = host.unwrap_or(own).to_owned();
        let info = (*self.info).clone();
        let info = info.set_addr(ConnectionAddr::Tcp(host, port));
        Self {
            address: address::text(info.addr()).into(),
            info: Arc::new(info),
            tls: self.tls.clone(),
            primary_of: self.primary_of.clone(),
        }
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
            connection: Connection::new(connection),
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
        if !self.is_known() {
            let text = "no sentinel has named the primary yet";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text).into());
        }
        let connecting = async {
            let stream = stream::open(&self.info, self.tls.as_ref()).await?;
            let mut socket = Socket::new(stream);
            let settings = self.info.redis_settings();
            for (step, command) in handshake::steps(settings, name) {
                let answer = socket.introduce(&command).await;
                answer.map_err(|cause| handshake::failed(step, cause, settings))?;
            }
            if self.primary_of.is_some() {
                let unfit = |cause| NoConnection {
                    step: Step::Introduce,
                    cause,
                };
                let role = socket.exchange(&redis::cmd("ROLE")).await;
                role.and_then(|role| handshake::is_primary(&role))
                    .map_err(unfit)?;
            }
            Ok(socket)
        };
        // Covers a server that accepts and then stays silent, too.
        within(2 * CONNECT_TIMEOUT, connecting).await
    }
}

/// A connection for the pool.
pub(in crate::adapters::redis::net) struct Pooled {
    connection: Connection,
    socket: Socket2,
    /// Carries the connection's commands and replies. It ends with the runtime that spawned it.
    traffic: JoinHandle<()>,
    progress: Progress,
    runtime: runtime::Id,
}

impl Pooled {
    /// Whether the idle connection has died.
    pub(in crate::adapters::redis::net) fn is_dead(&self) -> bool {
        self.traffic.is_finished() || stream::is_closed(&self.socket)
    }

    /// Runs an exchange, however long its reply takes, unless the server is silent for a time. With
    /// `asking` the server also answers for the keys of a slot that moves to it.
    pub(in crate::adapters::redis::net) async fn run<T>(
        &mut self,
        asking: bool,
        exchange: impl AsyncFnOnce(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        self.connection.set_asking(asking);
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
    pub(in crate::adapters::redis::net) async fn is_driven(&mut self) -> bool {
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
    Server::read(url, &Access::default()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::redis::net::TlsSettings;
    use crate::adapters::redis::net::connections::access::SentinelLogin;

    fn found(url: &str) -> Found {
        Server::read(url, &Access::default()).unwrap()
    }

    fn server(url: &str) -> Server {
        found(url).servers.remove(0)
    }

    #[test]
    fn tls_settings_need_an_encrypted_url() {
        let settings = TlsSettings::new().with_ca_file("ca.pem");
        let error = Server::read("redis://h", &Access::by(&settings)).unwrap_err();
        assert!(error.to_string().contains("rediss://"), "{error}");
    }

    #[test]
    fn sentinels_have_a_log_in_of_their_own() {
        let access = Access {
            sentinel: SentinelLogin {
                user: None,
                password: Some("watch".to_owned()),
            },
            ..Access::default()
        };
        let found = Server::read("redis+sentinel://ann:secret@s1,s2/x", &access).unwrap();
        for sentinel in &found.servers {
            let settings = sentinel.info.redis_settings();
            assert_eq!(
                (settings.username(), settings.password()),
                (None, Some("watch"))
            );
        }
        let Layout::Sentinels(primary) = found.layout else {
            panic!("{:?}", found.layout);
        };
        let named = primary.at(Some("h"), 7000);
        assert_eq!(named.info.redis_settings().password(), Some("secret"));
        assert_eq!(named.service().map(|name| &**name), Some("x"));
        assert!(named.is_known() && !primary.is_known());
        for url in ["redis://h", "redis+cluster://h"] {
            let error = Server::read(url, &access).unwrap_err();
            assert!(error.to_string().contains("names no sentinels"), "{error}");
        }
    }

    #[test]
    fn debug_shows_the_address_and_no_credentials() {
        let shown = format!("{:?}", server("redis://ann:secret@h:7000/3"));
        assert!(shown.contains("h:7000"), "{shown}");
        assert!(
            !shown.contains("ann") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn a_node_takes_the_credentials_of_the_node_that_named_it() {
        let seed = server("redis+cluster://ann:secret@h:7000");
        let node = seed.at(Some("::1"), 7001);
        assert_eq!(&**node.address(), "[::1]:7001");
        assert_eq!(node.info.redis_settings().username(), Some("ann"));
        assert_eq!(&**seed.at(None, 7002).address(), "h:7002");
    }
}
