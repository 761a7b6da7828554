//! The console beside a million dead letters: what a visitor waits for, what memory its process takes,
//! and what its open pages cost the consumers, in a program of its own because it needs the tool built.
//!
//! The other side of a page is the same page beside ten thousand; of the consumers it is the same work
//! without a console.

// The other figures' parts are not used here.
#![allow(dead_code, unused_imports)]

mod bench;
mod meter;
mod options;
mod ours;
mod pair;
mod report;
mod server;
mod work;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redstart::Topic;

use crate::bench::Bench;
use crate::pair::Side;
use crate::report::percentiles;
use crate::server::{Server, bench_group};

/// Each this many-th dead letter is of a cause of its own.
const RARE: u64 = 1_000;
/// How often a page is asked for; the figure is the median.
const ASKED: usize = 9;
/// Pages that stand open beside the consumers.
const OPEN: usize = 20;

fn main() {
    bench::run(measure);
}

async fn measure(bench: &mut Bench) {
    let pages = [
        ("console/overview", "ms"),
        ("console/causes", "ms"),
        ("console/list/common", "ms"),
        ("console/list/rare", "ms"),
        ("console/memory", "MiB"),
    ];
    let consuming = [
        ("console/consumer-p50", "ms"),
        ("console/consumer-p99", "ms"),
    ];
    let mut names = [&pages[..], &consuming].concat();
    names.retain(|(name, _)| bench.options.wants_long(name));
    if names.is_empty() {
        return;
    }
    let many = bench.options.count(1_000_000);
    bench
        .report
        .measure_once(pages, async |side| {
            let server = &bench.server;
            server.flush();
            let count = if side == Side::Ours { many } else { many / 100 };
            let topic = server.fresh_topic();
            let container = server.container(&topic).await;
            ours::add_dead_letters(&container, &topic, &bench_group(), count, RARE).await;
            ours::finish(container).await;
            let console = Console::start(&server.url);
            let list = format!("/dead/{topic}/{}", bench_group());
            let times = [
                console.median("/", "dead"),
                console.median("/dead", "cause"),
                console.median(&format!("{list}?error=failed"), "50 dead letters"),
                console.median(&format!("{list}?error=out+of+paper"), "dead letter"),
            ];
            let peak = console.high_water();
            assert!(peak < 64.0, "the console has taken {peak} MiB");
            let [overview, causes, common, rare] = times.map(|time| time.as_secs_f64() * 1e3);
            [overview, causes, common, rare, peak]
        })
        .await;
    bench
        .report
        .measure(consuming, async |side| {
            let server = &bench.server;
            let console = (side == Side::Ours).then(|| Console::start(&server.url));
            let open: Vec<TcpStream> = console.iter().flat_map(|one| one.open(OPEN)).collect();
            let duration = Duration::from_secs(if bench.options.quick { 1 } else { 3 });
            let consumers = server.fresh_topic();
            let mut seen = ours::latencies(server, &consumers, duration).await;
            server.drop_topic(&consumers);
            drop(open);
            percentiles(&mut seen, [0.5, 0.99])
        })
        .await;
    bench.server.flush();
}

/// A console in a process of its own.
struct Console {
    process: Child,
    address: String,
}

impl Console {
    fn start(url: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_redstart"))
            .args(["console", "--listen", "127.0.0.1:0"])
            .env("REDSTART_REDIS_URL", url)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool is built");
        let said = BufReader::new(process.stderr.take().expect("a pipe"));
        let line = said.lines().next().expect("a line").expect("text");
        let address = line.strip_prefix("http://").expect("an address");
        let address = address.split(' ').next().expect("an address").to_owned();
        Self { process, address }
    }

    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("the console listens");
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    }

    /// The median time of a page that has a part.
    fn median(&self, path: &str, part: &str) -> Duration {
        let mut times: Vec<Duration> = (0..ASKED)
            .map(|_| {
                let began = Instant::now();
                let mut page = String::new();
                self.ask(path).read_to_string(&mut page).expect("a page");
                let taken = began.elapsed();
                assert!(
                    page.starts_with("HTTP/1.1 200") && page.contains(part),
                    "{path}: {page}"
                );
                taken
            })
            .collect();
        times.sort_unstable();
        times[ASKED / 2]
    }

    /// Opens pages that follow the figures.
    fn open(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.ask("/events?of=/")).collect()
    }

    /// The most memory that the process has had, in MiB.
    fn high_water(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: f64 = kib
            .and_then(|kib| kib.trim().parse().ok())
            .expect("a number");
        kib / 1024.0
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
