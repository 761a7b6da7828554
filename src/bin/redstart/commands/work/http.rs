//! Posts messages to a URL: the status of the answer ends the attempt.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use redstart::{Delivery, Outcome};
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::answer;
use super::metadata::fields;
use crate::failure::chain;

/// The longest answer that leaves a connection usable, in bytes.
const LONGEST: usize = 64 * 1024;
/// How long connecting may take. A shorter `--timeout` holds for it too.
const CONNECTING: Duration = Duration::from_secs(10);

type Connection = SendRequest<Full<Bytes>>;

/// An endpoint that handles messages.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: Uri,
    /// The URL in errors, which are stored: without its query, which may hold a key of the endpoint.
    name: String,
    host: String,
    port: u16,
    limit: Duration,
    /// Connections that have answered and are still open.
    idle: Mutex<Vec<Connection>>,
}

impl Endpoint {
    /// Checks the URL.
    pub(super) fn new(url: &str, limit: Duration) -> Result<Self, String> {
        let rule = |rule: &str| format!("--http {rule}");
        if url.starts_with("https://") {
            let text = "has no TLS yet: post to a proxy on this machine by http://";
            return Err(rule(text));
        }
        if !url.starts_with("http://") {
            return Err(rule("must be a URL that begins with http://"));
        }
        let url: Uri = url
            .parse()
            .map_err(|error| rule(&format!("must be a URL: {error}")))?;
        if url
            .authority()
            .is_some_and(|one| one.as_str().contains('@'))
        {
            return Err(rule("takes no user and no password in the URL"));
        }
        let host = url.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| rule("must name a host"))?;
        let authority = url.authority().map_or("", |one| one.as_str());
        Ok(Self {
            name: format!("http://{authority}{}", url.path()),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(80),
            limit,
            idle: Mutex::default(),
            url,
        })
    }

    /// Posts one message.
    pub(super) async fn handle(&self, payload: &RawValue, delivery: &Delivery) -> Outcome {
        let request = match self.request(payload, delivery) {
            Ok(request) => request,
            Err(rule) => return Outcome::dead_letter(rule),
        };
        tokio::select! {
            biased;
            // The outcome is discarded, and dropping the request closes its connection.
            () = delivery.cancelled() => Outcome::retry("cancelled"),
            answered = self.post(request) => match answered {
                Ok(outcome) => outcome,
                // The endpoint is away: no fault of the message.
                Err(error) => Outcome::back_off(format!("{}: {error}", self.name)),
            },
        }
    }

    fn request(
        &self,
        payload: &RawValue,
        delivery: &Delivery,
    ) -> Result<Request<Full<Bytes>>, String> {
        let target = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let mut request = Request::post(target)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::copy_from_slice(payload.get().as_bytes())))
            .map_err(|error| format!("cannot make a request: {error}"))?;
        let headers = request.headers_mut();
        for (name, value) in fields(delivery)? {
            let name = format!("redstart-{name}");
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("{name} is not a valid header name"))?;
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| format!("{name} would hold a control character"))?;
            headers.insert(name, value);
        }
        if let Some(trace) = delivery.envelope().headers().get("traceparent")
            && let Ok(trace) = HeaderValue::from_str(trace)
        {
            headers.insert("traceparent", trace);
        }
        if let Ok(token) = std::env::var(TOKEN)
            && let Ok(mut token) = HeaderValue::from_str(&format!("Bearer {token}"))
        {
            token.set_sensitive(true);
            headers.insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    /// Returns the outcome of the attempt, or why no attempt began.
    async fn post(&self, request: Request<Full<Bytes>>) -> Result<Outcome, String> {
        let mut request = request;
        // An idle connection may have been closed by now: what was not sent is sent by a fresh one.
        while let Some(mut connection) = self.take_idle() {
            // A connection whose endpoint answered without reading the whole request is never ready.
            let is_ready = timeout(self.connecting(), connection.ready()).await;
            if !matches!(is_ready, Ok(Ok(()))) {
                continue;
            }
            match self.send(request, connection).await {
                Ok(outcome) => return Ok(outcome),
                Err(unsent) => request = unsent.request,
            }
        }
        let connection = timeout(self.connecting(), self.connect());
        let connection = connection.await.map_err(|_| {
            let limit = self.connecting();
            format!("no connection after {limit:?}")
        })??;
        let sent = self.send(request, connection).await;
        sent.map_err(|unsent| unsent.error)
    }

    fn connecting(&self) -> Duration {
        self.limit.min(CONNECTING)
    }

    /// Sends a request and reads the answer. The attempt and its time begin here.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        mut connection: Connection,
    ) -> Result<Outcome, Unsent> {
        let began = Instant::now();
        let answered = timeout(self.limit, connection.try_send_request(request)).await;
        match answered {
            Err(_) => Ok(Outcome::retry(format!("timed out after {:?}", self.limit))),
            Ok(Ok(response)) => {
                let left = self.limit.saturating_sub(began.elapsed());
                Ok(self.read(response, connection, left).await)
            }
            Ok(Err(mut failed)) => match failed.take_message() {
                Some(request) => Err(Unsent {
                    request,
                    error: chain(failed.error()),
                }),
                None => Ok(self.unanswered(failed.error())),
            },
        }
    }

    /// The outcome of a request that was sent and not answered. The endpoint may have begun, so the
    /// attempt counts: an endpoint that dies of a message must not get it for ever.
    fn unanswered(&self, error: &hyper::Error) -> Outcome {
        Outcome::retry(format!("{}: {}", self.name, chain(error)))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        tokio::spawn(async move {
            // The request that it carries fails with it.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Reads an answer to its end, so that the connection can be used again. The status has come, and it
    /// counts also where the body does not end in time.
    async fn read(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        left: Duration,
    ) -> Outcome {
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER);
        let after = after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = Limited::new(response.into_body(), LONGEST).collect();
        let told = match timeout(left, body).await {
            Ok(Ok(body)) => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.push(connection);
                String::from_utf8_lossy(&body.to_bytes()).into_owned()
            }
            // Too long, cut off or too slow.
            Ok(Err(_)) | Err(_) => String::new(),
        };
        answer::outcome(status, after.as_deref(), &told)
    }
}

/// A request of which the endpoint has seen nothing.
#[derive(Debug)]
struct Unsent {
    request: Request<Full<Bytes>>,
    error: String,
}

/// The variable with the token of the endpoint.
pub(super) const TOKEN: &str = "REDSTART_WORK_TOKEN";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    #[test]
    fn a_url_that_cannot_be_posted_to_is_refused_by_a_rule() {
        let new = |url: &str| Endpoint::new(url, Duration::from_secs(1));
        for (url, rule) in [
            ("https://h/", "no TLS yet"),
            ("ftp://h/", "begins with http://"),
            ("localhost:80", "begins with http://"),
            ("/path", "begins with http://"),
            ("http://ann:secret@h/", "no user and no password"),
            ("http://h h/", "must be a URL"),
        ] {
            let told = new(url).unwrap_err();
            assert!(told.contains(rule), "{url}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
        let one = new("http://[::1]:8080/charge?x=1").unwrap();
        assert_eq!((&*one.host, one.port), ("::1", 8080));
        assert_eq!(new("http://bank").unwrap().port, 80);
    }

    async fn posted(listener: &TcpListener, limit: Duration) -> Result<Outcome, String> {
        let url = format!("http://{}/charge", listener.local_addr().unwrap());
        let endpoint = Endpoint::new(&url, limit).unwrap();
        let request = Request::post("/charge").body(Full::new(Bytes::new()));
        endpoint.post(request.unwrap()).await
    }

    /// A system that takes no more connections lets the next one wait, or refuses it.
    #[tokio::test]
    async fn an_endpoint_that_takes_no_connection_costs_no_attempt() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let limit = Duration::from_secs(1);
        while let Ok(Ok(stream)) = timeout(limit, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        let error = posted(&listener, limit).await;
        assert!(error.is_err(), "{error:?}");
    }

    #[tokio::test]
    async fn a_status_counts_whose_body_does_not_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limit = Duration::from_secs(2);
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbeg";
            stream.write_all(begun.as_bytes()).await.unwrap();
            stream
        };
        let (outcome, _stream) = tokio::join!(posted(&listener, limit), answering);
        assert_eq!(outcome.unwrap(), Outcome::Ack);
    }
}
