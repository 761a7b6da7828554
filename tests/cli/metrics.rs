//! `metrics`: Prometheus's text format, once and on an endpoint.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redstart::{Delivery, Outcome, RetryPolicy, SubscribeOptions, extract::Payload};
use serde_json::Value;

use crate::run::{line_with, publish, redstart, run, run_with, wait};
use crate::support::roles::Roles;
use crate::support::{PATIENCE, Server, container, finish, signal, topic, until};

/// A running endpoint.
struct Endpoint {
    child: Child,
    address: String,
    log: Box<dyn Iterator<Item = std::io::Result<String>>>,
}

impl Endpoint {
    fn start(url: &str, rest: &[&str]) -> Self {
        let args = [&["metrics", "--listen", "127.0.0.1:0"], rest].concat();
        let mut child = redstart(Some(url), &args).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = line_with(&mut log, "metrics on http://");
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        Self {
            child,
            address,
            log: Box::new(log),
        }
    }

    /// The whole answer to a request line.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The body of a scrape.
    fn scrape(&self) -> String {
        let answer = self.ask("GET /metrics");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let kind = "content-type: text/plain; version=0.0.4; charset=utf-8";
        assert!(head.contains(kind), "{head}");
        body.to_owned()
    }

    fn stop(mut self, with: &str) {
        signal(self.child.id(), with);
        assert_eq!(wait(&mut self.child).code(), Some(0), "{with}");
    }
}

/// The value of a series.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

const OF_BILLING: &str = "{topic=\"orders\",group=\"billing\"}";

fn of_billing(text: &str, name: &str) -> Option<f64> {
    value(text, &format!("{name}{OF_BILLING}"))
}

/// Leaves one message in each state, without a consumer: 1 dead, 1 scheduled, 2 undelivered. One more
/// is in flight at a consumer of another program.
async fn every_state(server: &Server) {
    let container = container(server).await;
    let orders = topic("orders");
    let options = SubscribeOptions::new()
        .with_retry(RetryPolicy::fixed(Duration::from_secs(86_400)).with_max_attempts(2));
    let handler = |Payload(n): Payload<u32>, _: Delivery| async move {
        match n {
            0 => Outcome::dead_letter("never"),
            _ => Outcome::retry("later"),
        }
    };
    let subscription = container
        .bus()
        .subscribe_with(&orders, options, handler)
        .await
        .unwrap();
    crate::support::publish(&container, &orders, 0..2).await;
    until("both to be handled", async || {
        let group = crate::support::group("billing");
        let status = crate::support::status(&container, &orders, &group).await;
        (status.dead == 1 && status.scheduled == 1).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
    crate::support::publish(&container, &orders, 2..5).await;
    finish(container).await;
    let log = "{shop:orders}:log";
    let read = ["XREADGROUP", "GROUP", "billing", "python", "COUNT", "1"];
    let _: redis::Value = server.command(&[&read[..], &["STREAMS", log, ">"]].concat());
}

#[tokio::test]
async fn the_endpoint_measures_groups_that_no_consumer_serves() {
    let server = Server::start();
    every_state(&server).await;
    let url = server.url();
    let endpoint = Endpoint::start(&url, &[]);
    let text = endpoint.scrape();
    assert_eq!(value(&text, "redstart_up"), Some(1.0), "{text}");
    for (name, expected) in [
        ("redstart_lag", 2.0),
        ("redstart_group_in_flight", 1.0),
        ("redstart_scheduled_retries", 1.0),
        ("redstart_dead_letters_stored", 1.0),
        ("redstart_consumers", 1.0),
    ] {
        assert_eq!(of_billing(&text, name), Some(expected), "{name}: {text}");
    }
    assert!(of_billing(&text, "redstart_oldest_undelivered_seconds").unwrap() > 0.0);
    assert!(of_billing(&text, "redstart_group_oldest_in_flight_seconds").unwrap() > 0.0);
    let next = of_billing(&text, "redstart_next_retry_seconds").unwrap();
    assert!((80_000.0..=86_400.0).contains(&next), "{next}");
    let of_topic = |name: &str| value(&text, &format!("{name}{{topic=\"orders\"}}"));
    // The settled ones go when the janitor trims next.
    let entries = of_topic("redstart_entries").unwrap();
    assert!((3.0..=5.0).contains(&entries), "{entries}");
    assert_eq!(of_topic("redstart_backlog"), Some(4.0));
    assert_eq!(of_topic("redstart_backlog_limit"), Some(1_000_000.0));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let kind = format!("# TYPE {name} gauge\n");
        assert_eq!(text.matches(&kind).count(), 1, "{name}: {text}");
        assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1);
    }

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let checked = run_with(promtool, text).ok();
    assert_eq!((&*checked.out, &*checked.err), ("", ""));

    let text = run(Some(&url), &["metrics"]).ok().out;
    assert_eq!(of_billing(&text, "redstart_lag"), Some(2.0), "{text}");
    let told = run(Some(&url), &["metrics", "--json"]).ok().json();
    let group = &told[0]["groups"][0];
    assert_eq!(told[0]["backlogLimit"], 1_000_000);
    assert_eq!((&group["lag"], &group["inFlight"]), (&2.into(), &1.into()));
    assert!(group["oldestUndeliveredMs"].as_u64().is_some(), "{group}");

    let answer = endpoint.ask("GET /healthz");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"));
    for (request, status) in [
        ("GET /", "404 Not Found"),
        ("GET /metrics/x", "404 Not Found"),
        ("POST /metrics", "405 Method Not Allowed"),
        ("nonsense", "400 Bad Request"),
    ] {
        let answer = endpoint.ask(request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {answer}"
        );
    }
    let head = endpoint.ask("HEAD /metrics?x=1");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    endpoint.stop("INT");
}

#[test]
fn scrapes_share_a_measurement() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let shared = Endpoint::start(&url, &["--every", "1h"]);
    let each = Endpoint::start(&url, &["--every", "0s"]);
    let entries =
        |endpoint: &Endpoint| value(&endpoint.scrape(), "redstart_entries{topic=\"orders\"}");
    assert_eq!((entries(&shared), entries(&each)), (Some(1.0), Some(1.0)));
    publish(&url, &["--type", "t"], "2\n").ok();
    assert_eq!((entries(&shared), entries(&each)), (Some(1.0), Some(2.0)));
    shared.stop("TERM");
    each.stop("TERM");
}

#[test]
fn a_server_that_is_away_is_a_gauge_and_not_the_end() {
    let mut server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    server.kill();
    let mut endpoint = Endpoint::start(&url, &["--every", "0s"]);
    let is_away = |endpoint: &Endpoint| {
        let text = endpoint.scrape();
        assert!(!text.contains("redstart_entries"), "{text}");
        value(&text, "redstart_up") == Some(0.0)
    };
    assert!(is_away(&endpoint));
    let line = line_with(&mut endpoint.log, "cannot measure");
    assert!(line.contains("no connection to the server"), "{line}");
    server.start_again();
    let entries = "redstart_entries{topic=\"orders\"}";
    assert_eq!(value(&endpoint.scrape(), entries), Some(1.0));
    server.kill();
    assert!(is_away(&endpoint));
    assert!(endpoint.ask("GET /healthz").starts_with("HTTP/1.1 200 OK"));
    server.start_again();
    crate::work::until("the endpoint to measure again", || {
        value(&endpoint.scrape(), entries) == Some(1.0)
    });
    endpoint.stop("TERM");
}

#[test]
fn names_of_a_foreign_hand_leave_the_format_whole() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let hostile = "a\"} 1\nredstart_up 7\n\\";
    let log = "{shop:orders}:log";
    let _: String = server.command(&["XGROUP", "CREATE", log, hostile, "0"]);
    let _: String = server.command(&["XGROUP", "CREATE", log, "billing", "0"]);
    let read = ["XREADGROUP", "GROUP", "billing", hostile, "COUNT", "1"];
    let _: redis::Value = server.command(&[&read[..], &["STREAMS", log, ">"]].concat());
    let _: u64 = server.command(&["SADD", "{shop}:topics", hostile]);
    let text = run(Some(&url), &["metrics"]).ok().out;
    assert_eq!(
        of_billing(&text, "redstart_group_in_flight"),
        Some(1.0),
        "{text}"
    );
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let _: f64 = value.parse().unwrap();
        assert!(
            series.starts_with("redstart_") && series != "redstart_up",
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_viewer_may_measure() {
    let roles = Roles::start().await;
    every_state(&roles.server).await;
    roles.denied();
    let text = run(Some(&roles.url("viewer")), &["metrics"]).ok().out;
    assert!(
        of_billing(&text, "redstart_oldest_undelivered_seconds").is_some(),
        "{text}"
    );
    assert_eq!(roles.denied(), Vec::<String>::new());
}

#[test]
fn wrong_addresses_and_settings_are_refused() {
    let refused = |args: &[&str]| {
        let all = [&["metrics"], args].concat();
        run(Some("redis://127.0.0.1:1"), &all).failed(2).err
    };
    for address in ["9464", "localhost:9464", "127.0.0.1", "127.0.0.1:99999", ""] {
        let err = refused(&["--listen", address]);
        assert!(
            err.contains("must be an IP address and a port"),
            "{address}: {err}"
        );
    }
    refused(&["--every", "5s"]);
    refused(&["--listen", "127.0.0.1:0", "--every", "-5s"]);
    refused(&["--listen", "127.0.0.1:0", "--json"]);
    let bad = ["metrics", "--listen", "127.0.0.1:0"];
    run(Some("nonsense"), &bad).failed(2);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(
        Some("redis://127.0.0.1:1"),
        &["metrics", "--listen", &address],
    )
    .failed(1);
    assert!(
        ran.err.contains(&format!("cannot listen on {address}")),
        "{ran:?}"
    );
    let none: Vec<Value> = Vec::new();
    let server = Server::start();
    let told = run(Some(&server.url()), &["metrics", "--json"]).ok().json();
    assert_eq!(told, Value::from(none));
}
