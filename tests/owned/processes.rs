//! Processes that join, leave, die and stand still on one server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::AsyncCommands as _;
use redstart::Envelope;
use redstart::topics::TopicSettings;
use tokio::sync::mpsc::unbounded_channel;

use crate::history::{KEYS, check};
use crate::member::{Ground, LEASE, start};
use crate::support::worker::Worker;
use crate::support::{Server, container, drained, finish, group, topic, until};

const PARTITIONS: u16 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_key_keep_their_order_whatever_happens_to_processes() {
    let seed = std::env::var("REDSTART_OWNED_SEED").ok();
    let seed = seed.map_or(7, |seed| seed.parse().unwrap());
    let rounds = std::env::var("REDSTART_OWNED_ROUNDS").ok();
    let rounds: u32 = rounds.map_or(8, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start();
    let container = container(&server).await;
    let ground = Ground {
        url: server.url(),
        namespace: "shop".to_owned(),
        history: server.url(),
    };
    let (orders, billing) = (topic("orders"), group("billing"));
    let settings = TopicSettings::default().with_partitions(PARTITIONS);
    container.topics().create(&orders, settings).await.unwrap();
    let (sender, _said) = unbounded_channel();
    let mut members: BTreeMap<u32, Worker> = BTreeMap::new();
    let mut last = 0;
    let mut join = |members: &mut BTreeMap<u32, Worker>| {
        last += 1;
        members.insert(last, start(&ground, last, &sender));
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
    let wrong = check(&history, messages, &BTreeSet::new());
    let stale = history
        .iter()
        .filter(|one| one.starts_with("stale"))
        .count();
    let ends = history.iter().filter(|one| one.starts_with("end")).count();
    println!("seed {seed}: {messages} messages, {ends} ends, {stale} stale");
    assert_eq!(wrong, [""; 0], "seed {seed}, {} in all", wrong.len());
    finish(container).await;
}
