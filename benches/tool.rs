//! The command-line tool beside a million dead letters: what an operator waits for, and what memory
//! the tool takes, in a program of its own because it needs the tool built.
//!
//! The other side is the same command beside ten thousand; of the redrive it is the rate that was
//! asked for. Times are those of whole processes, from their start to their end.

// The other figures' parts are not used here.
#![allow(dead_code, unused_imports)]

mod bench;
mod later;
mod meter;
mod options;
mod ours;
mod pair;
mod report;
mod server;
mod work;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redstart::Topic;

use crate::bench::Bench;
use crate::pair::Side;
use crate::report::percentiles;
use crate::server::{Server, bench_group};

/// Each this many-th dead letter is of a cause of its own.
const RARE: u64 = 1_000;
/// The rate that a redrive is compared with, a second.
const WANTED: f64 = 30_000.0;

fn main() {
    bench::run(measure);
}

/// A topic with a number of dead letters.
#[derive(Clone)]
struct Case {
    topic: Topic,
    count: u64,
}

async fn measure(bench: &mut Bench) {
    later::measure(bench).await;
    let looking = [
        ("tool/summary", "ms"),
        ("tool/list/common", "ms"),
        ("tool/list/rare", "ms"),
    ];
    let memory = [
        ("tool/memory/list", "MiB"),
        ("tool/memory/export", "MiB"),
        ("tool/memory/purge-dry-run", "MiB"),
    ];
    let redriving = [
        ("tool/redrive", "dead letters/s"),
        ("tool/redrive/consumer-p50", "ms"),
        ("tool/redrive/consumer-p99", "ms"),
    ];
    let redriving_all = [("tool/memory/redrive", "MiB")];
    let mut names = [&looking[..], &memory, &redriving, &redriving_all].concat();
    names.retain(|(name, _)| bench.options.wants_long(name));
    if names.is_empty() {
        return;
    }
    let server = &bench.server;
    let (many, some) = (bench.options.count(1_000_000), bench.options.count(100_000));
    let many = case(server, many).await;
    let few = case(server, many.count / 100).await;
    let of = |side| if side == Side::Ours { &many } else { &few };

    bench
        .report
        .measure(looking, async |side| {
            let case = of(side);
            let summary = case.run(&server.url, &["summary"], &[]);
            assert!(summary.lines > 2, "{}", summary.last);
            let page =
                |error| case.run(&server.url, &["list"], &["--error", error, "--max", "100"]);
            let (common, rare) = (page("failed"), page("out of paper"));
            assert_eq!(common.lines, 101);
            assert_eq!(rare.lines, 1 + (case.count / RARE).min(100));
            [summary, common, rare].map(|ran| ran.taken.as_secs_f64() * 1e3)
        })
        .await;
    bench
        .report
        .measure_once(memory, async |side| {
            let case = of(side);
            let all = case.count.to_string();
            let list = case.run(&server.url, &["list"], &["--max", &all]);
            assert_eq!(list.lines, case.count + 1);
            let export = case.run(&server.url, &["export"], &[]);
            assert_eq!(export.lines, case.count);
            let purge = case.run(&server.url, &["purge"], &["--all", "--dry-run"]);
            assert!(purge.last.contains("from "), "{}", purge.last);
            [list, export, purge].map(|ran| ran.peak)
        })
        .await;
    bench
        .report
        .measure(redriving, async |side| {
            // Not beside the consumers: it is not the tool's.
            let until = many.oldest(server, some).await;
            let redriving = async {
                if side == Side::Raw {
                    return WANTED;
                }
                let (case, url) = (many.clone(), server.url.clone());
                let redrive = move || case.run(&url, &["redrive", "--json"], &["--until", &until]);
                let ran = tokio::task::spawn_blocking(redrive).await.expect("ran");
                let taken = taken(&ran.last);
                assert!(taken >= some);
                taken as f64 / ran.taken.as_secs_f64()
            };
            let duration = Duration::from_secs(if bench.options.quick { 1 } else { 3 });
            let consumers = server.fresh_topic();
            let (rate, mut seen) =
                tokio::join!(redriving, ours::latencies(server, &consumers, duration));
            server.drop_topic(&consumers);
            let [p50, p99] = percentiles(&mut seen, [0.5, 0.99]);
            [rate, p50, p99]
        })
        .await;
    bench
        .report
        .measure_once(redriving_all, async |side| {
            let ran = of(side).run(&server.url, &["redrive", "--json"], &["--all"]);
            assert!(taken(&ran.last) > 0);
            [ran.peak]
        })
        .await;
    server.flush();
}

async fn case(server: &Server, count: u64) -> Case {
    let topic = server.fresh_topic();
    let container = server.container(&topic).await;
    ours::add_dead_letters(&container, &topic, &bench_group(), count, RARE).await;
    ours::finish(container).await;
    Case { topic, count }
}

/// The cost and the output of a run of the tool.
struct Ran {
    taken: Duration,
    /// The most memory that it had, in MiB.
    peak: f64,
    lines: u64,
    last: String,
}

impl Case {
    fn run(&self, url: &str, command: &[&str], rest: &[&str]) -> Ran {
        let began = Instant::now();
        let mut tool = Command::new(env!("CARGO_BIN_EXE_redstart"))
            .arg("dead")
            .args(command)
            .args([self.topic.as_str(), bench_group().as_str()])
            .args(rest)
            .env("REDSTART_REDIS_URL", url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool is built");
        let said = BufReader::new(tool.stdout.take().expect("a pipe"));
        let reading = std::thread::spawn(move || {
            let (mut lines, mut last) = (0, String::new());
            for line in said.lines() {
                (lines, last) = (lines + 1, line.expect("text"));
            }
            (lines, last)
        });
        let mut peak = 0_f64;
        let status = loop {
            if let Some(status) = tool.try_wait().expect("a child") {
                break status;
            }
            peak = peak.max(high_water(tool.id()).unwrap_or(0.0));
            std::thread::sleep(Duration::from_millis(1));
        };
        let taken = began.elapsed();
        assert!(status.success(), "{command:?}: {status}");
        assert!(peak < 32.0, "{command:?} has taken {peak} MiB");
        let (lines, last) = reading.join().expect("read");
        Ran {
            taken,
            peak,
            lines,
            last,
        }
    }

    /// The time until which `count` messages died.
    async fn oldest(&self, server: &Server, count: u64) -> String {
        let container = server.connect().await;
        let until = ours::oldest(&container, &self.topic, &bench_group(), count).await;
        ours::finish(container).await;
        until.to_string()
    }
}

/// The `taken` of the account that a sweep ends with.
fn taken(account: &str) -> u64 {
    let account: serde_json::Value = serde_json::from_str(account).expect("JSON");
    account["taken"].as_u64().expect("a number")
}

/// The most memory that a process has had, in MiB.
fn high_water(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
