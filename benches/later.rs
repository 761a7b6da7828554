//! How late messages for later come: each set by a process that exits at once, with a million others
//! waiting. The other side is the same with no others.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{SubscribeOptions, Topic};
use tokio::sync::mpsc;

use crate::bench::Bench;
use crate::pair::Side;
use crate::report::percentiles;
use crate::server::Server;

/// How far ahead a message is set, in milliseconds: some nearer than the promoter's own look.
const AHEAD: std::ops::Range<u64> = 250..750;
/// How long the commands of an idle container are counted.
const IDLE: Duration = Duration::from_secs(20);
const CHUNK: u64 = 1_000;

const SHARED: [(&str, &str); 5] = [
    ("later/late-p50", "ms"),
    ("later/late-p99", "ms"),
    ("later/late-max", "ms"),
    ("later/idle-commands", "commands/s"),
    ("later/idle-server-cpu", "% of a core"),
];
const OWN: [(&str, &str); 5] = [
    ("later/own/late-p50", "ms"),
    ("later/own/late-p99", "ms"),
    ("later/own/late-max", "ms"),
    ("later/own/idle-commands", "commands/s"),
    ("later/own/idle-server-cpu", "% of a core"),
];

pub(super) async fn measure(bench: &mut Bench) {
    // As every subscription of a container with more than eight, and as the first eight.
    for (figures, reading) in [(SHARED, Reading::Shared), (OWN, Reading::Own)] {
        if bench.options.wants_any_long(&figures) {
            measure_with(bench, figures, reading).await;
        }
    }
}

async fn measure_with(
    bench: &mut Bench,
    figures: [(&'static str, &'static str); 5],
    reading: Reading,
) {
    let (waiting, count) = (bench.options.count(1_000_000), bench.options.count(100));
    let server = &bench.server;
    bench
        .report
        .measure_once(figures, async |side| {
            let topic = server.fresh_topic();
            let container = server.container(&topic).await;
            if side == Side::Ours {
                fill(server, &topic, waiting);
            }
            let (sender, mut received) = mpsc::unbounded_channel();
            let handler = move |Payload(due): Payload<u64>| {
                let _ = sender.send(now().saturating_sub(due));
                std::future::ready(())
            };
            let bus = container.bus();
            let options = SubscribeOptions::new().with_reading(reading);
            let subscribing = bus.subscribe_with(&topic, options, handler);
            let _subscription = subscribing.await.expect("subscribed");
            tokio::time::sleep(Duration::from_secs(5)).await;

            let (commands, cpu) = (server.commands(), server.cpu());
            tokio::time::sleep(IDLE).await;
            // The connections that ask INFO send a few commands themselves, on both sides.
            let commands = (server.commands() - commands) / IDLE.as_secs_f64();
            let cpu = (server.cpu() - cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;

            let mut late = Vec::new();
            for _ in 0..count {
                set_and_exit(server, &topic, fastrand::u64(AHEAD)).await;
                let millis = received.recv().await.expect("the handler's sender");
                late.push(Duration::from_millis(millis));
            }
            crate::ours::finish(container).await;
            server.flush();
            let [p50, p99, most] = percentiles(&mut late, [0.5, 0.99, 1.0]);
            [p50, p99, most, commands, cpu]
        })
        .await;
}

/// Milliseconds since 1970. Server and handlers use one clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("a time")
}

/// Sets a message by a process of its own, whose payload is its due time.
async fn set_and_exit(server: &Server, topic: &Topic, ahead: u64) {
    let due = now() + ahead;
    let time = redstart::envelope::Timestamp::from_millis(i64::try_from(due).expect("a time"));
    let time = time.expect("a time").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_redstart"));
    command
        .args([
            "publish",
            topic.as_str(),
            "--type",
            "order.due",
            "--at",
            &time,
        ])
        .env("REDSTART_REDIS_URL", &server.url)
        .env_remove("REDSTART_NAMESPACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut process = command.spawn().expect("the tool");
        let input = process.stdin.take().expect("a pipe");
        (&input)
            .write_all(due.to_string().as_bytes())
            .expect("written");
        drop(input);
        process.wait().expect("the process is ours")
    });
    let status = ended.await.expect("the tool ended");
    assert!(status.success(), "publish: {status}");
}

/// Lets messages wait that are due in days, as `lua/later_put.lua` stores them.
fn fill(server: &Server, topic: &Topic, count: u64) {
    let mut connection = server.client().get_connection().expect("the server is up");
    let first = now() + 86_400_000;
    let body = format!("json {{\"padding\":\"{}\"}}", "x".repeat(300));
    for start in (0..count).step_by(usize::try_from(CHUNK).expect("small")) {
        let mut due = redis::cmd("ZADD");
        due.arg(format!("{{{topic}}}:later"));
        let mut bodies = redis::cmd("HSET");
        bodies.arg(format!("{{{topic}}}:later:body"));
        for number in start..(start + CHUNK).min(count) {
            due.arg(first + number).arg(format!("waiting-{number}"));
            bodies.arg(format!("waiting-{number}")).arg(&body);
        }
        due.exec(&mut connection).expect("scheduled");
        bodies.exec(&mut connection).expect("stored");
    }
}
