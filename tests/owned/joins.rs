//! Eight members share 64 partitions, and one of them leaves. The test prints the times and demands none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redstart::SubscribeOptions;
use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::topics::TopicSettings;

use crate::support::{PATIENCE, Server, container, finish, topic, until};

const PARTITIONS: u16 = 64;
const MEMBERS: usize = 8;

/// Whether `members` members own all partitions, each an even share.
fn is_balanced(server: &Server, members: usize) -> bool {
    let all: Vec<String> = server.command(&["HGETALL", "{shop:orders}:group:billing:owners"]);
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in all.chunks(2) {
        if pair[0].parse::<u16>().is_ok() {
            *shares.entry(&pair[1]).or_default() += 1;
        }
    }
    let partitions = usize::from(PARTITIONS);
    let even = partitions / members..=partitions.div_ceil(members);
    shares.len() == members
        && shares.values().sum::<usize>() == partitions
        && shares.values().all(|share| even.contains(share))
}

/// How many scripts the server has run, and how long they took in microseconds.
fn scripts(server: &Server) -> (u64, u64) {
    let info: String = server.command(&["INFO", "commandstats"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
    let number = |name: &str| {
        let fields = line.unwrap_or_default().split(',');
        let field = fields.filter_map(|field| field.split_once('='));
        let mut field = field.filter(|(one, _)| *one == name);
        field.next().map_or(0, |(_, value)| value.parse().unwrap())
    };
    (number("calls"), number("usec"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_until_the_shares_are_even() {
    let server = Server::start();
    let (orders, mut members) = (topic("orders"), Vec::new());
    for count in 1..=MEMBERS {
        let container = container(&server).await;
        let settings = TopicSettings::default().with_partitions(PARTITIONS);
        if count == 1 {
            container.topics().create(&orders, settings).await.unwrap();
        }
        let (before, began) = (scripts(&server), Instant::now());
        let options = SubscribeOptions::new().with_ownership(Ownership::new());
        let bus = container.bus();
        let subscribing = bus.subscribe_with(&orders, options, async |_: Payload<u32>| {});
        let subscription = subscribing.await.unwrap();
        let subscribed = began.elapsed();
        until("even shares", async || {
            is_balanced(&server, count).then_some(())
        })
        .await;
        let (took, after) = (began.elapsed(), scripts(&server));
        let (calls, micros) = (after.0 - before.0, after.1 - before.1);
        println!(
            "member {count}: subscribed after {subscribed:?}, even shares after {took:?}, \
             {calls} scripts in {micros} us"
        );
        members.push((container, subscription));
    }
    let before = scripts(&server);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = scripts(&server).0 - before.0;
    println!("{MEMBERS} members: {idle} scripts in 3 s");
    let (container, subscription) = members.pop().unwrap();
    let (before, began) = (scripts(&server), Instant::now());
    let report = subscription.unsubscribe(PATIENCE).await;
    let left = began.elapsed();
    assert!(report.is_clean(), "{report:?}");
    until("even shares", async || {
        is_balanced(&server, MEMBERS - 1).then_some(())
    })
    .await;
    let (took, calls) = (began.elapsed(), scripts(&server).0 - before.0);
    println!("departure: left after {left:?}, even shares after {took:?}, {calls} scripts");
    finish(container).await;
    for (container, _) in members {
        finish(container).await;
    }
}
