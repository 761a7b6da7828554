//! Owned groups over processes that join, leave, die and stand still, with a checked history.
//!
//! Each handler writes its beginning and its end into one list on the server, under the fence of its
//! delivery. The list is therefore in the order of the events. The history must show, for each key, that
//! one message was under way at a time, that the messages ended in the order in which they were published,
//! that nothing is missing, and that an attempt whose process died has counted.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::{AsyncCommands as _, Script};
use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::topics::TopicSettings;
use redstart::{Container, Delivery, Envelope, Namespace, Outcome, RetryPolicy, SubscribeOptions};
use support::worker::{END, Worker, orders};
use support::{Server, container, drained, finish, group, topic, until};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const PARTITIONS: u16 = 12;
const KEYS: u32 = 60;
const LEASE: Duration = Duration::from_millis(500);
const ENVIRONMENT: &str = "REDSTART_OWNED_MEMBER";

/// Notes an event, unless a later owner of the partition has noted one: what every user of the fence does
/// with data of their own.
const NOTE: &str = "
local fence = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if tonumber(ARGV[2]) < fence then
  redis.call('RPUSH', KEYS[1], 'stale ' .. ARGV[3])
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[1], ARGV[3])
return 1
";

/// Not a test: the program that the test below starts as its members.
#[test]
fn member_process() {
    let Ok(setting) = std::env::var(ENVIRONMENT) else {
        return;
    };
    let (url, number) = setting.split_once(' ').unwrap();
    let (url, number): (String, u32) = (url.to_owned(), number.parse().unwrap());
    let mut orders = orders();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = redis::Client::open(&url[..]).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let container = Container::builder()
            .with_redis_url(url)
            .with_namespace(Namespace::new("shop").unwrap())
            .with_service(group("billing"))
            .connect()
            .await
            .unwrap();
        let options = SubscribeOptions::new()
            .with_concurrency(8)
            .with_retry(RetryPolicy::fixed(Duration::from_millis(1)).with_max_attempts(100))
            .with_ownership(Ownership::new().with_lease(LEASE));
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let mut connection = connection.clone();
            async move {
                let Some(fence) = delivery.fence() else {
                    return Outcome::dead_letter("no fence");
                };
                let attempt = delivery.attempt();
                let mut note = async |what: &str| -> bool {
                    let text = format!("{what} {n} {attempt} {number}");
                    loop {
                        let noted: redis::RedisResult<bool> = Script::new(NOTE)
                            .key("history")
                            .key("fences")
                            .arg(fence.partition)
                            .arg(fence.token)
                            .arg(&text)
                            .invoke_async(&mut connection)
                            .await;
                        // A process that stood still may note an event twice.
                        if let Ok(noted) = noted {
                            return noted;
                        }
                    }
                };
                if !note("begin").await {
                    return Outcome::retry("another process owns the partition");
                }
                tokio::time::sleep(Duration::from_micros(fastrand::u64(0..16_000))).await;
                let fails = n % 50 == 7 && attempt == 1;
                match note(if fails { "fail" } else { "end" }).await {
                    true if fails => Outcome::retry("not yet"),
                    true => Outcome::Ack,
                    false => Outcome::retry("another process owns the partition"),
                }
            }
        };
        let bus = container.bus();
        let _subscription = bus
            .subscribe_with(&topic("orders"), options, handler)
            .await
            .unwrap();
        while let Some(order) = orders.recv().await {
            if order == END {
                finish(container).await;
                std::process::exit(0);
            }
        }
    });
}

fn start(server: &Server, number: u32, sender: &UnboundedSender<(u32, String)>) -> Worker {
    let setting = format!("{} {number}", server.url());
    let arguments = ["member_process", "--exact", "--nocapture"];
    Worker::start(
        &arguments,
        &[(ENVIRONMENT, &setting)],
        number,
        sender.clone(),
    )
}

/// What the history says of one key.
#[derive(Debug, Default)]
struct OfKey {
    /// The message under way, and its process.
    open: Option<(u32, u32)>,
    ended: Vec<u32>,
}

/// Processes that have died or stood still so far.
#[derive(Debug, Default)]
struct Troubled {
    died: BTreeSet<u32>,
    stood_still: BTreeSet<u32>,
}

/// Everything that is wrong with a history.
fn check(history: &[String], messages: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut troubled = Troubled::default();
    let mut keys: BTreeMap<u32, OfKey> = BTreeMap::new();
    let mut begun: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let mut of_late: BTreeSet<u32> = BTreeSet::new();
    let mut last: BTreeMap<u32, &String> = BTreeMap::new();
    for event in history {
        let words: Vec<&str> = event.split(' ').collect();
        let (what, n, attempt, process) = match words[..] {
            [what @ ("begin" | "end" | "fail"), n, attempt, process] => (what, n, attempt, process),
            ["kill", process] => {
                troubled.died.insert(process.parse().unwrap());
                continue;
            }
            ["stop", process] => {
                troubled.stood_still.insert(process.parse().unwrap());
                continue;
            }
            _ => {
                assert_eq!(words[0], "stale", "{event}");
                continue;
            }
        };
        let [n, attempt, process] = [n, attempt, process].map(|word| word.parse::<u32>().unwrap());
        if last.insert(n % KEYS, event) == Some(event) {
            continue;
        }
        let key = keys.entry(n % KEYS).or_default();
        let is_troubled =
            |one: &u32| troubled.died.contains(one) || troubled.stood_still.contains(one);
        match what {
            "begin" => {
                if let Some((other, by)) = key.open {
                    if !is_troubled(&by) {
                        wrong.push(format!("{event}: {other} is under way in {by}"));
                    } else if other != n {
                        wrong.push(format!("{event}: {other} of {by} comes first"));
                    }
                }
                key.open = Some((n, process));
                if troubled.stood_still.contains(&process) {
                    of_late.insert(n);
                }
                let before = begun.insert((n, attempt), process);
                // A process that was late and gets the message back has not crashed.
                let is_other = |before: &u32| *before != process && !of_late.contains(&n);
                if let Some(before) = before.filter(is_other) {
                    wrong.push(format!("{event}: {before} began the same attempt"));
                }
            }
            what => {
                key.open = None;
                if what == "end" {
                    key.ended.push(n);
                }
            }
        }
    }
    for n in 0..messages {
        let ended = keys.get(&(n % KEYS)).map(|key| &key.ended);
        if !ended.is_some_and(|ended| ended.contains(&n)) {
            wrong.push(format!("{n} is missing"));
        }
    }
    for (key, of) in &keys {
        if !of.ended.is_sorted() {
            wrong.push(format!("key {key} ended out of order: {:?}", of.ended));
        }
    }
    wrong
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let events = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let wrong = |all: &[&str], messages| check(&events(all), messages);
    let first = ["begin 0 1 1", "end 0 1 1"];
    assert_eq!(wrong(&first, 1), [""; 0]);
    assert_eq!(wrong(&first, 2).len(), 1, "1 is missing");
    let beside = ["begin 0 1 1", "begin 60 1 2", "end 0 1 1", "end 60 1 2"];
    assert_eq!(wrong(&beside, 1).len(), 1);
    let late = ["begin 60 1 1", "end 60 1 1", "begin 0 1 1", "end 0 1 1"];
    assert_eq!(wrong(&late, 1).len(), 1);
    let again = ["begin 0 1 1", "kill 1", "begin 0 1 2", "end 0 1 2"];
    assert_eq!(wrong(&again, 1).len(), 1, "the attempt counts");
    let counted = [
        "begin 0 1 1",
        "stop 1",
        "begin 0 2 2",
        "stale end 0 1 1",
        "end 0 2 2",
    ];
    assert_eq!(wrong(&counted, 1), [""; 0]);
    let early = ["begin 0 1 1", "begin 0 2 2", "end 0 2 2", "kill 1"];
    assert_eq!(
        wrong(&early, 1).len(),
        1,
        "it was under way before the kill"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_key_keep_their_order_whatever_happens_to_processes() {
    let seed = std::env::var("REDSTART_OWNED_SEED").ok();
    let seed = seed.map_or(7, |seed| seed.parse().unwrap());
    let rounds = std::env::var("REDSTART_OWNED_ROUNDS").ok();
    let rounds: u32 = rounds.map_or(8, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start();
    let container = container(&server).await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let settings = TopicSettings::default().with_partitions(PARTITIONS);
    container.topics().create(&orders, settings).await.unwrap();
    let (sender, _said) = unbounded_channel();
    let mut members: BTreeMap<u32, Worker> = BTreeMap::new();
    let mut last = 0;
    let mut join = |members: &mut BTreeMap<u32, Worker>| {
        last += 1;
        members.insert(last, start(&server, last, &sender));
    };
    (0..3).for_each(|_| join(&mut members));
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut published = 0;
    let mut publish = async |count: u32| {
        let numbers = published..published + count;
        let message = |n: u32| {
            Envelope::new("n", &n)
                .unwrap()
                .with_key(format!("k{}", n % KEYS))
        };
        let all: Vec<Envelope> = numbers.map(message).collect();
        for result in container.bus().publish_all(&orders, &all).await {
            result.unwrap();
        }
        published += count;
        published
    };
    publish(600).await;
    for round in 0..rounds {
        // More than is handled meanwhile: handlers run whenever a partition moves.
        publish(1_000).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let numbers: Vec<u32> = members.keys().copied().collect();
        let victim = numbers[random.usize(..numbers.len())];
        match (round % 4, members.len()) {
            (0, _) | (_, 1) => join(&mut members),
            (1, _) => {
                let mut dying = members.remove(&victim).unwrap();
                let _: u32 = connection
                    .rpush("history", format!("kill {victim}"))
                    .await
                    .unwrap();
                dying.kill();
                join(&mut members);
            }
            (2, _) => {
                let _: u32 = connection
                    .rpush("history", format!("stop {victim}"))
                    .await
                    .unwrap();
                let victim = members.get_mut(&victim).unwrap();
                victim.freeze();
                publish(300).await;
                tokio::time::sleep(LEASE * 2).await;
                victim.thaw();
            }
            _ => members.remove(&victim).unwrap().end(),
        }
    }
    let messages = publish(60).await;
    until("the group to exist", async || {
        container.topics().groups(&orders).await.unwrap().pop()
    })
    .await;
    drained(&container, &orders, &billing).await;
    members.into_values().for_each(Worker::end);

    let history: Vec<String> = connection.lrange("history", 0, -1).await.unwrap();
    let wrong = check(&history, messages);
    let stale = history
        .iter()
        .filter(|one| one.starts_with("stale"))
        .count();
    let ends = history.iter().filter(|one| one.starts_with("end")).count();
    println!("seed {seed}: {messages} messages, {ends} ends, {stale} stale");
    assert_eq!(wrong, [""; 0], "seed {seed}, {} in all", wrong.len());
    finish(container).await;
}
