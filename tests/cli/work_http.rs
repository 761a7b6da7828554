//! `work --http`: handlers behind an endpoint.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::dead::{counts, dead, id, list};
use crate::run::{publish, redstart, run, run_with, wait};
use crate::support::{Server, signal};
use crate::work::{started, until, waiting};

/// A request as an endpoint sees it.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
    /// The number of its connection.
    connection: usize,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map_or("", |(_, value)| value)
    }
}

/// A header after which the endpoint hangs up, without having said so.
const HANGS_UP: &str = "x-test: hangs up\r\n";
/// In place of an answer: the endpoint hangs up without one.
const NO_ANSWER: &str = "";

/// An endpoint that answers by a function. It keeps connections open.
struct Endpoint {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Endpoint {
    fn start(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/charge?x=1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = read(&mut reader, connection) {
                        all.lock().unwrap().push(request.clone());
                        let text = answer(&request);
                        let written = (&stream).write_all(text.as_bytes());
                        let hangs_up = text == NO_ANSWER || text.contains(HANGS_UP);
                        if written.is_err() || hangs_up {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        line: line.trim_end().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
        connection,
    })
}

fn status(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

#[test]
fn an_endpoint_gets_the_message_and_its_status_ends_the_attempt() {
    let server = Server::start();
    let url = server.url();
    let endpoint = Endpoint::start(|request| {
        let attempt = request.header("redstart-attempt");
        match (&*request.body, attempt) {
            ("1", _) | ("3", "2") => status("204 No Content", "", ""),
            ("2", _) => status("422 Unprocessable", "", "no price\n"),
            ("3", _) => status("409 Conflict", "retry-after: 0\r\n", ""),
            _ => status("500 Oops", "", "a bug"),
        }
    });
    let rest = ["--max-attempts", "2", "--concurrency", "1"];
    let args = [&["--http", &endpoint.url][..], &rest].concat();
    let mut worker = started(&url, &args, &[("REDSTART_WORK_TOKEN", "canary")]);
    let args = [
        "--type",
        "t",
        "--key",
        "k",
        "--header",
        "traceparent=00-1-2-01",
    ];
    publish(&url, &args, "1\n2\n3\n4\n").ok();
    until("two to be dead", || {
        counts(&url) == (2, 0) && waiting(&url) == 0
    });
    signal(worker.id(), "TERM");
    assert_eq!(wait(&mut worker).code(), Some(0));

    let seen = endpoint.seen();
    let mut bodies: Vec<&str> = seen.iter().map(|one| &*one.body).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["1", "2", "3", "3", "4", "4"]);
    let first = &seen[0];
    assert_eq!(first.line, "POST /charge?x=1 HTTP/1.1");
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer canary"),
        ("redstart-topic", "orders"),
        ("redstart-group", "billing"),
        ("redstart-attempt", "1"),
        ("redstart-message-type", "t"),
        ("redstart-message-key", "k"),
        ("traceparent", "00-1-2-01"),
        ("redstart-message-headers", r#"{"traceparent":"00-1-2-01"}"#),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert_eq!(first.header("redstart-message-id").len(), 36);
    assert!(
        seen.iter().all(|one| one.connection == 0),
        "one connection is enough"
    );
    let mut errors: Vec<String> = list(&url, &[])
        .iter()
        .map(|one| format!("{} {}", one["reason"], one["error"]))
        .collect();
    errors.sort();
    assert_eq!(
        errors,
        [
            r#""exhausted" "status 500: a bug""#,
            r#""rejected" "status 422: no price""#
        ]
    );
}

#[test]
fn an_endpoint_that_is_away_or_busy_costs_no_attempt() {
    let server = Server::start();
    let url = server.url();
    let busy = Arc::new(Mutex::new(true));
    let is_busy = Arc::clone(&busy);
    let endpoint = Endpoint::start(move |_| match *is_busy.lock().unwrap() {
        true => status("503 Busy", "retry-after: 1\r\n", ""),
        false => status("400 Bad Request", "", ""),
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    publish(&url, &["--type", "t"], "1\n").ok();
    for target in [&nowhere, &endpoint.url] {
        let args = ["--http", target, "--max-attempts", "1"];
        let mut worker = started(&url, &args, &[]);
        until("the message to wait", || counts(&url) == (0, 1));
        if *target == endpoint.url {
            until("a request", || !endpoint.seen().is_empty());
            *busy.lock().unwrap() = false;
            until("the message to be dead", || counts(&url).0 == 1);
        }
        signal(worker.id(), "TERM");
        assert_eq!(wait(&mut worker).code(), Some(0));
    }
    let letter = &list(&url, &[])[0];
    assert_eq!(letter["attempts"], 1);
    assert_eq!(
        letter["error"], "status 400",
        "the 503 before it does not count"
    );
}

#[test]
fn an_endpoint_that_does_not_answer_or_hangs_up_is_no_end() {
    let server = Server::start();
    let url = server.url();
    let endpoint = Endpoint::start(|request| match &*request.body {
        "9" => {
            thread::sleep(Duration::from_secs(3600));
            String::new()
        }
        _ => status("200 OK", HANGS_UP, "ok"),
    });
    let args = [
        "--http",
        &endpoint.url,
        "--timeout",
        "200ms",
        "--max-attempts",
        "1",
    ];
    let mut worker = started(&url, &args, &[]);
    publish(&url, &["--type", "t"], "9\n").ok();
    until("it to be dead", || counts(&url).0 == 1);
    assert_eq!(list(&url, &[])[0]["error"], "timed out after 200ms");
    // Each next request finds its connection closed, and opens another one.
    for count in 2..6 {
        publish(&url, &["--type", "t"], "1\n").ok();
        until("an answer", || endpoint.seen().len() == count);
        until("the end", || waiting(&url) == 0);
    }
    assert_eq!(counts(&url), (1, 0));
    signal(worker.id(), "TERM");
    assert_eq!(wait(&mut worker).code(), Some(0));
}

#[test]
fn an_endpoint_that_dies_of_a_message_does_not_get_it_for_ever() {
    let server = Server::start();
    let url = server.url();
    let endpoint = Endpoint::start(|request| match &*request.body {
        "9" => NO_ANSWER.to_owned(),
        _ => status("200 OK", "", ""),
    });
    let args = ["--http", &endpoint.url, "--max-attempts", "2"];
    let args = [&args[..], &["--concurrency", "1"]].concat();
    let mut worker = started(&url, &args, &[]);
    // The first request leaves a connection open, on which the second one is sent.
    publish(&url, &["--type", "t"], "1\n9\n").ok();
    until("it to be dead", || counts(&url).0 == 1);
    let letter = &list(&url, &[])[0];
    assert_eq!(letter["attempts"], 2, "{letter}");
    // The error is stored, and the query may hold a key of the endpoint.
    let (told, (name, _)) = (
        letter["error"].as_str().unwrap(),
        endpoint.url.split_once('?').unwrap(),
    );
    assert!(told.contains(name) && !told.contains("x=1"), "{told}");
    let shown = dead(&url, "show", &[&id(letter), "--json"]).ok().json();
    assert_eq!(shown["handler"], name);
    signal(worker.id(), "TERM");
    assert_eq!(wait(&mut worker).code(), Some(0));
}

#[test]
fn a_url_that_cannot_be_posted_to_is_refused() {
    let work = ["work", "orders", "billing", "--http"];
    for (target, rule) in [
        ("https://bank/charge", "has no TLS yet"),
        ("bank/charge", "begins with http://"),
        ("http://ann:canary@bank/", "no user and no password"),
    ] {
        let args = [&work[..], &[target]].concat();
        let ran = run_with(redstart(Some("redis://127.0.0.1:1"), &args), "").failed(2);
        assert!(
            ran.err.contains(rule) && !ran.err.contains("canary"),
            "{ran:?}"
        );
    }
    run(
        None,
        &[&work[..], &["http://h/", "--exec", "true"]].concat(),
    )
    .failed(2);
}
