//! The console's own server, with a log-in.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service as _;

use super::access::{Access, Login};
use super::options::ConsoleOptions;
use super::service::{ConsoleService, service};
use crate::container::Container;
use crate::domain::{Error, ErrorKind};

/// Connections beside those with live figures. Browsers open several.
const CONNECTIONS: usize = 256;

/// How long a client may take for the head of a request, also of the next one on its connection.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Until the next try where the system has no connection to give.
const PAUSE: Duration = Duration::from_millis(100);

/// How long answers may take to end after the server was told to stop.
const GRACE: Duration = Duration::from_millis(300);

/// A bound server of a console.
#[derive(Debug)]
pub struct ConsoleServer {
    listener: TcpListener,
    address: SocketAddr,
    login: Arc<Login>,
    console: ConsoleService,
    connections: usize,
}

impl ConsoleServer {
    /// Binds the address. [`run`](Self::run) then answers.
    ///
    /// The log-in decides who a visitor is; the function of the options is not asked.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for an address that other machines reach, without a log-in;
    /// [`Unavailable`](ErrorKind::Unavailable) when the address cannot be bound.
    pub async fn bind(
        container: Container,
        options: ConsoleOptions,
        address: SocketAddr,
        login: Login,
    ) -> Result<Self, Error> {
        login.check(address)?;
        let failed = |error: io::Error| {
            Error::new(
                ErrorKind::Unavailable,
                "listen",
                "the address cannot be bound",
            )
            .on(address.to_string())
            .because(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let connections = options.max_clients.saturating_add(CONNECTIONS);
        let options = options.with_resolver(|parts| {
            let access = parts.extensions.get::<Access>().cloned();
            access.unwrap_or(Access::Forbidden)
        });
        Ok(Self {
            listener,
            address,
            login: Arc::new(login),
            console: service(container, options),
            connections: connections.min(Semaphore::MAX_PERMITS),
        })
    }

    /// The address, with the port that the system gave.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is ready, then ends open answers within half a second.
    ///
    /// A sweep that runs in this process then stops, and the journal keeps it without a result: any
    /// console or shell can resume it.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(self.connections));
        let mut open = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                // Keeps the set small.
                Some(_) = open.join_next() => continue,
                accepted = accept(&self.listener, &connections) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (console, login) = (self.console.clone(), Arc::clone(&self.login));
            open.spawn(async move {
                serve(stream, peer, console, login).await;
                drop(permit);
            });
        }
        drop(self.listener);
        // Live figures have no end: what is left after the grace is cut off.
        let ended = async { while open.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, ended).await;
        open.shutdown().await;
    }
}

type Accepted = (TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<Accepted> {
    // The semaphore is never closed.
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer.ip().to_canonical(), permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, console: ConsoleService, login: Arc<Login>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut console, login) = (console.clone(), Arc::clone(&login));
        async move {
            let (mut parts, body) = request.into_parts();
            match login.access(&parts, peer).await {
                Ok(access) => drop(parts.extensions.insert(access)),
                Err(failure) => drop(parts.extensions.insert(failure)),
            }
            console.call(Request::from_parts(parts, body)).await
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        // The library answers these itself, with a status and without a page.
        if error.is_parse_too_large() {
            tracing::warn!(%peer, %error, "refused a request with too long an address or head");
            return;
        }
        tracing::debug!(%error, "a connection failed");
    }
}
