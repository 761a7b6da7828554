//! Whole stories: pipelines, error paths, and workers that are processes.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Envelope, Namespace, Outcome, RetryPolicy, SubscribeOptions,
    dead_letters::Reason,
    kv::{Once, once},
};
use support::worker::{END, Worker, orders, say};
use support::{
    PATIENCE, Server, container, drained, finish, group, letters, next, signal, some, status,
    topic, until,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const WORKER_LEASE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_order_is_charged_once_and_what_broke_is_mended_and_redriven() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, kv, orders) = (container.bus(), container.kv(), topic("orders"));
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let charges = Arc::new(AtomicU32::new(0));
    let (sender, mut received) = mpsc::unbounded_channel();
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(2);
    let options = SubscribeOptions::new().with_retry(retry);
    let (flag, count, store) = (Arc::clone(&broken), Arc::clone(&charges), kv.clone());
    let _subscription = bus
        .subscribe_with(
            &orders,
            options,
            move |Payload(order): Payload<u32>, _: Delivery| {
                let (flag, count, kv) = (Arc::clone(&flag), Arc::clone(&count), store.clone());
                let sender = sender.clone();
                async move {
                    let key = format!("charge:{order}");
                    let charged = once(&kv, &key, Duration::from_secs(600), || async {
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, BoxError>(format!("receipt-{order}"))
                    })
                    .await
                    .map_err(|e| e.to_string())?;
                    assert!(!matches!(charged, Once::InProgress));
                    if order % 10 == 3 && flag.load(Ordering::SeqCst) {
                        return Err(format!("printer 10.0.0.{order} is on fire"));
                    }
                    let printed = kv.incr("printed", 1).await.map_err(|e| e.to_string())?;
                    let _ = sender.send(printed);
                    Ok(())
                }
            },
        )
        .await
        .unwrap();
    let all: Vec<Envelope> = (0..50_u32)
        .map(|n| Envelope::new("order.placed", &n).unwrap())
        .collect();
    for result in bus.publish_all(&orders, &all).await {
        result.unwrap();
    }
    some(&mut received, 45).await;
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 5);

    let dead = container.dead_letters();
    let letters = letters(&container, &orders, &group("billing")).await;
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason == Reason::Exhausted)
    );
    let prints: std::collections::BTreeSet<&str> = letters
        .iter()
        .map(|letter| letter.fingerprint.as_str())
        .collect();
    assert_eq!(prints.len(), 1, "one cause, one fingerprint: {prints:?}");
    broken.store(false, Ordering::SeqCst);
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    let result = dead
        .redrive(&orders, &group("billing"), &ids)
        .await
        .unwrap();
    assert_eq!(result.moved.len(), 5);
    some(&mut received, 5).await;
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 0);
    assert_eq!(
        charges.load(Ordering::SeqCst),
        50,
        "nobody was charged twice"
    );
    assert!(container.health().await.ok);
    finish(container).await;
}

#[tokio::test]
async fn a_pipeline_of_three_stages_carries_correlation_tenant_and_trace() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, stages) = (
        container.bus(),
        ["ordered", "invoiced", "shipped"].map(topic),
    );
    let (sender, mut received) = mpsc::unbounded_channel();
    for pair in stages.windows(2) {
        let (publisher, to) = (container.bus(), pair[1].clone());
        let _subscription = bus
            .subscribe(
                &pair[0],
                move |Payload(order): Payload<u32>, delivery: Delivery| {
                    let (bus, to) = (publisher.clone(), to.clone());
                    async move {
                        // The first attempt of each stage fails after nothing was published.
                        if delivery.attempt() == 1 && order.is_multiple_of(7) {
                            return Ok(Outcome::retry_after(Duration::from_millis(5), "flaky"));
                        }
                        let next = delivery
                            .envelope()
                            .follow_up_as(to.as_str(), &(order + 1))?;
                        bus.publish(&to, &next).await?;
                        Ok::<_, BoxError>(Outcome::Ack)
                    }
                },
            )
            .await
            .unwrap();
    }
    let _last = bus
        .subscribe(
            &stages[2],
            move |Payload(order): Payload<u32>, delivery: Delivery| {
                let envelope = delivery.envelope();
                let _ = sender.send((
                    order,
                    envelope.correlation().map(str::to_owned),
                    envelope.tenant().map(str::to_owned),
                    envelope.headers().get("traceparent").cloned(),
                ));
                async {}
            },
        )
        .await
        .unwrap();
    for n in 0..100_u32 {
        let envelope = Envelope::new("ordered", &n)
            .unwrap()
            .with_correlation(format!("story-{n}"))
            .with_tenant("shop-1")
            .with_header("traceparent", "00-1-2-01");
        bus.publish(&stages[0], &envelope).await.unwrap();
    }
    let seen = some(&mut received, 100).await;
    for (n, (order, story, tenant, trace)) in seen.into_iter().enumerate() {
        assert_eq!(order as usize, n + 2);
        assert_eq!(story, Some(format!("story-{n}")));
        assert_eq!(tenant.as_deref(), Some("shop-1"));
        assert_eq!(trace.as_deref(), Some("00-1-2-01"));
    }
    for stage in &stages {
        drained(&container, stage, &group("billing")).await;
    }
    finish(container).await;
}

/// Not a test: the program that the tests below start as their workers.
#[test]
fn worker_process() {
    let Ok(url) = std::env::var("REDSTART_TEST_WORKER") else {
        return;
    };
    let mut orders = orders();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let container = Container::builder()
            .with_redis_url(url)
            .with_namespace(Namespace::new("shop").unwrap())
            .with_service(group("billing"))
            .connect()
            .await
            .unwrap();
        let options = SubscribeOptions::new()
            .with_concurrency(4)
            .with_lease(WORKER_LEASE);
        let _subscription = container
            .bus()
            .subscribe_with(
                &topic("orders"),
                options,
                |Payload(n): Payload<u32>, _: Delivery| async move {
                    say(&format!("begun {n}"));
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    say(&format!("handled {n}"));
                },
            )
            .await
            .unwrap();
        assert_eq!(orders.recv().await.as_deref(), Some(END));
        let report = container.shutdown(PATIENCE).await;
        assert!(report.is_clean(), "{report:?}");
    });
}

fn worker(server: &Server, number: u32, sender: UnboundedSender<(u32, String)>) -> Worker {
    let arguments = ["worker_process", "--exact", "--nocapture"];
    let environment = ("REDSTART_TEST_WORKER", &*server.url());
    Worker::start(&arguments, &[environment], number, sender)
}

/// Receives reports until the condition holds.
async fn listen(
    received: &mut UnboundedReceiver<(u32, String)>,
    handled: &mut BTreeMap<u32, u32>,
    until: impl Fn(&(u32, String), &BTreeMap<u32, u32>) -> bool,
) {
    loop {
        let said = next(received).await;
        if let Some(n) = said.1.strip_prefix("handled ") {
            *handled.entry(n.parse().unwrap()).or_default() += 1;
        }
        if until(&said, handled) {
            return;
        }
    }
}

async fn publish(container: &Container, count: u32) {
    let all: Vec<Envelope> = (0..count)
        .map(|n| Envelope::new("order", &n).unwrap())
        .collect();
    for result in container.bus().publish_all(&topic("orders"), &all).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn of_three_worker_processes_one_is_killed_and_nothing_is_lost() {
    let server = Server::start();
    let container = container(&server).await;
    publish(&container, 1500).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut workers: Vec<Worker> = (0..3)
        .map(|number| worker(&server, number, sender.clone()))
        .collect();
    drop(sender);
    let mut handled = BTreeMap::new();
    // In the middle of its work: the first one has begun something.
    listen(&mut received, &mut handled, |(number, text), handled| {
        *number == 0 && text.starts_with("begun") && handled.len() >= 100
    })
    .await;
    let mut killed = workers.remove(0);
    killed.kill();
    let left = drained(&container, &topic("orders"), &group("billing")).await;
    assert_eq!(left.dead, 0);
    for worker in workers {
        worker.end();
    }
    while let Some((_, text)) = received.recv().await {
        if let Some(n) = text.strip_prefix("handled ") {
            *handled.entry(n.parse().unwrap()).or_default() += 1;
        }
    }
    assert_eq!(handled.len(), 1500, "published = handled");
    // Only messages of the killed worker were redelivered.
    assert!(handled.values().all(|times| *times <= 2));
    finish(container).await;
}

#[tokio::test]
async fn a_worker_frozen_beyond_its_lease_does_no_harm_when_it_thaws() {
    let server = Server::start();
    let container = container(&server).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut frozen = worker(&server, 0, sender.clone());
    publish(&container, 400).await;
    // Frozen while it has begun something.
    loop {
        if next(&mut received).await.1.starts_with("begun") {
            break;
        }
    }
    frozen.freeze();
    let other = worker(&server, 1, sender);
    // The other worker takes over every message, also those of the frozen one.
    drained(&container, &topic("orders"), &group("billing")).await;
    frozen.thaw();
    publish(&container, 400).await;
    let mut handled = BTreeMap::new();
    listen(&mut received, &mut handled, |_, handled| {
        handled.len() == 400
    })
    .await;
    let left = drained(&container, &topic("orders"), &group("billing")).await;
    assert_eq!(left.dead, 0);
    until("the thawed worker to be idle", async || {
        let status = status(&container, &topic("orders"), &group("billing")).await;
        (status.in_flight == 0).then_some(())
    })
    .await;
    frozen.end();
    other.end();
    finish(container).await;
}

/// Not a test: the program that the test below kills. It reports the processes and folders of two
/// servers and two workers, one of each frozen.
#[test]
fn process_to_kill() {
    if std::env::var("REDSTART_TEST_PROCESS_TO_KILL").is_err() {
        return;
    }
    let mut orders = orders();
    let servers = [Server::start(), Server::start()];
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut workers = [0, 1].map(|number| worker(&servers[0], number, sender.clone()));
    signal(servers[1].pid(), "STOP");
    workers[1].freeze();
    for server in &servers {
        say(&format!("folder {}", server.folder().display()));
    }
    let pids = servers.iter().map(Server::pid);
    for pid in pids.chain(workers.iter().map(Worker::pid)) {
        say(&format!("process {pid}"));
    }
    orders.blocking_recv();
    received.close();
}

/// Whether a process exists and is not a zombie.
fn is_running(pid: &str) -> bool {
    let listed = Command::new("ps").args(["-o", "stat=", "-p", pid]).output();
    let state = String::from_utf8(listed.unwrap().stdout).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

#[tokio::test]
async fn servers_and_workers_die_with_the_process_that_started_them() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let arguments = ["process_to_kill", "--exact", "--nocapture"];
    let environment = ("REDSTART_TEST_PROCESS_TO_KILL", "1");
    let mut parent = Worker::start(&arguments, &[environment], 0, sender);
    let (mut folders, mut pids) = (Vec::new(), Vec::new());
    while pids.len() < 4 {
        let (_, text) = next(&mut received).await;
        match text.split_once(' ').unwrap() {
            ("folder", path) => folders.push(PathBuf::from(path)),
            (_, pid) => pids.push(pid.to_owned()),
        }
    }
    assert!(folders.iter().all(|folder| folder.exists()), "{folders:?}");
    assert!(pids.iter().all(|pid| is_running(pid)), "{pids:?}");
    parent.kill();
    for pid in &pids {
        until("a process to die", async || {
            (!is_running(pid)).then_some(())
        })
        .await;
    }
    for folder in &folders {
        until("a folder to go", async || (!folder.exists()).then_some(())).await;
    }
}
