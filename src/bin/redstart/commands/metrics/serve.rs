//! The HTTP endpoint.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::poll::Poll;
use crate::failure::Failure;
use redstart::exposition as text;

/// Connections at once. Further clients wait until one closes.
const CONNECTIONS: usize = 64;

/// How long a client may take for the head of a request, also of the next one on its connection.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long a client may keep its connection. It opens another one then.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);

/// How long the answer to its last request may take after that.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// Until the next try where the system has no connection to give.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound endpoint.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    poll: Arc<Poll>,
}

impl Server {
    pub(super) async fn bind(address: SocketAddr, poll: Poll) -> Result<Self, Failure> {
        let on = |error: io::Error| Failure::new(format!("cannot listen on {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(on)?;
        let address = listener.local_addr().map_err(on)?;
        Ok(Self {
            listener,
            address,
            poll: Arc::new(poll),
        })
    }

    /// The address, with the port that the system gave.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers without an end.
    pub(super) async fn run(self) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let poll = Arc::clone(&self.poll);
            tokio::spawn(async move {
                serve(stream, poll).await;
                drop(permit);
            });
        }
    }
}

async fn serve(stream: TcpStream, poll: Arc<Poll>) {
    let answering = async move |request: Request<Incoming>| answer(&request, &poll).await;
    converse(stream, answering, [CONNECTION_LIMIT, LAST_ANSWER]).await;
}

/// Answers the requests of a connection until its time is over, and then the one in hand. A client that
/// does not read its answer must not hold its place for ever.
async fn converse(
    stream: TcpStream,
    answer: impl AsyncFn(Request<Incoming>) -> Response<Full<Bytes>>,
    [limit, last]: [Duration; 2],
) {
    let answer = &answer;
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request).await));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = match timeout(limit, connection.as_mut()).await {
        Ok(served) => Ok(served),
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(last, connection).await
        }
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a client does not read its answer"),
    }
}

async fn answer(request: &Request<Incoming>, poll: &Poll) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "only GET and HEAD\n";
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text.into());
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, text::CONTENT_TYPE, poll.text().await),
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".into()),
        _ => response(StatusCode::NOT_FOUND, PLAIN, "see /metrics\n".into()),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_loses_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        // More than the system takes for a client that does not read.
        let long = Bytes::from(vec![b'x'; 64 * 1024 * 1024]);
        let answer = async |_| response(StatusCode::OK, PLAIN, long.clone());
        let limits = [Duration::from_millis(100); 2];
        let ended = timeout(Duration::from_secs(30), converse(stream, answer, limits)).await;
        assert!(ended.is_ok(), "the connection stays open");
        drop(client);
    }
}
