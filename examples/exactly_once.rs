//! Shows effects: three stages whose outputs and sums are exact although worker processes are killed,
//! and the same stages without effects.
//!
//! Needs `redis-server`; it starts one of its own. `--json` prints the numbers as JSON instead.
//!
//! Output:
//!
//! ```text
//! with effects: every order once at each stage
//! without effects: some orders twice
//! ```

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redstart::extract::Publisher;
use redstart::{
    Container, Effects, Error, Kv, Message, Namespace, RetryPolicy, Router, State,
    SubscribeOptions, Topic,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const STAGES: [Topic; 3] = [
    Topic::from_static("orders"),
    Topic::from_static("stock"),
    Topic::from_static("invoices"),
];
const PAID: Topic = Topic::from_static("paid");
const MESSAGES: u64 = 2_000;
const WORKERS: usize = 3;
const KILLS: usize = 6;

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
}

impl Message for Order {
    const TYPE: &'static str = "order";
}

/// Where the messages of a stage go, and the counter that it raises.
#[derive(Clone)]
struct Stage {
    counter: String,
    next: Topic,
    kv: Kv,
}

/// Message, counter and acknowledgement are one step.
async fn with_effects(State(stage): State<Stage>, order: Order) -> Effects {
    let mut effects = Effects::new();
    effects.incr(&stage.counter, 1).send(&stage.next, &order);
    effects
}

/// A process that is killed between two of these steps repeats the first ones.
async fn without_effects(
    State(stage): State<Stage>,
    publisher: Publisher,
    order: Order,
) -> Result<(), Error> {
    stage.kv.incr(&stage.counter, 1).await?;
    publisher.send(&stage.next, &order).await?;
    Ok(())
}

async fn connect(url: &str, namespace: &str) -> Result<Container, Error> {
    Container::builder()
        .with_redis_url(url)
        .with_namespace(Namespace::new(namespace)?)
        .with_service("pipeline")
        .connect()
        .await
}

/// Handles all three stages until the process is killed.
async fn work(url: &str, namespace: &str) -> Result<(), Error> {
    let container = connect(url, namespace).await?;
    let next = STAGES.into_iter().skip(1).chain([PAID]);
    for (topic, next) in STAGES.into_iter().zip(next) {
        // Each crash counts as an attempt.
        let retry = RetryPolicy::fixed(Duration::ZERO).with_max_attempts(1_000);
        let options = SubscribeOptions::new()
            .with_lease(Duration::from_millis(500))
            .with_retry(retry);
        let stage = Stage {
            counter: format!("done:{topic}"),
            next,
            kv: container.kv(),
        };
        let router = Router::with_state(stage);
        let router = match namespace {
            "with" => router.on(with_effects),
            _ => router.on(without_effects),
        };
        let bus = container.bus();
        bus.subscribe_with(&topic, options, router).await?;
    }
    std::future::pending().await
}

/// What a run has left behind.
struct Numbers {
    outputs: u64,
    state_sum: u64,
    kills: usize,
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn worker(url: &str, namespace: &str) -> io::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["worker", url, namespace])
        .stdout(Stdio::null());
    command.spawn().map(Process)
}

/// Runs the stages, kills workers meanwhile, and waits until everything is handled.
async fn run(url: &str, namespace: &str) -> Result<Numbers, Box<dyn std::error::Error>> {
    let container = connect(url, namespace).await?;
    let orders: Vec<Order> = (0..MESSAGES).map(|id| Order { id }).collect();
    for published in container.bus().send_all(&STAGES[0], &orders).await {
        published?;
    }
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(worker(url, namespace)?);
    }
    let kv = container.kv();
    let mut kills = 0;
    let mut done = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut counters = Vec::new();
        for topic in &STAGES {
            let counter: Option<u64> = kv.get(&format!("done:{topic}")).await?;
            counters.push(counter.unwrap_or(0));
        }
        let now: u64 = counters.iter().sum();
        // In the middle of the work: another tenth of it is done since the last kill.
        if kills < KILLS && now >= done + 3 * MESSAGES / 10 {
            // Dropping the process kills it.
            workers[kills % WORKERS] = worker(url, namespace)?;
            (kills, done) = (kills + 1, now);
        }
        if counters.iter().all(|counter| *counter >= MESSAGES) && is_idle(&container).await? {
            let paid = container.topics().get(&PAID).await?;
            return Ok(Numbers {
                outputs: paid.map_or(0, |paid| paid.entries),
                state_sum: now,
                kills,
            });
        }
    }
}

/// Whether no stage has an unsettled message.
async fn is_idle(container: &Container) -> Result<bool, Error> {
    for topic in &STAGES {
        for group in container.topics().groups(topic).await? {
            if group.lag + group.in_flight + group.scheduled > 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Starts a server on a free port.
async fn server() -> Result<(Process, String), Box<dyn std::error::Error>> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = free.local_addr()?.port().to_string();
    drop(free);
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
    command.stdout(Stdio::null());
    let server = Process(command.spawn()?);
    let url = format!("redis://127.0.0.1:{port}/");
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Container::builder().with_redis_url(&url).connect().await {
        if Instant::now() > until {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((server, url))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["worker", url, namespace] = args[..] {
        return Ok(work(url, namespace).await?);
    }
    let (_server, url) = server().await?;
    let with = run(&url, "with").await?;
    let without = run(&url, "without").await?;
    let expected_sum = 3 * MESSAGES;
    let duplicates = without.state_sum - expected_sum + without.outputs - MESSAGES;
    if args == ["--json"] {
        let numbers = json!({
            "messages": MESSAGES,
            "outputs": with.outputs,
            "state_sum": with.state_sum,
            "expected_sum": expected_sum,
            "worker_kills": with.kills,
            "duplicates_without_effects": duplicates,
        });
        println!("{numbers}");
        return Ok(());
    }
    let exact = with.outputs == MESSAGES && with.state_sum == expected_sum && with.kills == KILLS;
    let amount = |exact| {
        if exact {
            "every order once at each stage"
        } else {
            "not exact"
        }
    };
    println!("with effects: {}", amount(exact));
    let amount = |twice| {
        if twice {
            "some orders twice"
        } else {
            "exact by chance"
        }
    };
    println!("without effects: {}", amount(duplicates > 0));
    Ok(())
}
