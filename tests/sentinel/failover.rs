//! The primary changes under load: it dies, stands still for a while, or hands over as planned.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redstart::envelope::Codec;
use redstart::extract::Payload;
use redstart::topics::{Retention, TopicSettings};
use redstart::{Container, Delivery, Durability, Envelope, ErrorKind, Topic};
use tokio::sync::mpsc;

use crate::support::sentinel::{CALM, Watched};
use crate::support::soon::Soon;
use crate::support::{PATIENCE, drained, finish, group, signal, topic, until, watch_stalls};

/// How long after the first word of a failover a publish may still reach the former primary.
const LIMIT: Duration = Duration::from_millis(200);

/// A publish that was acknowledged.
#[derive(Clone, Copy)]
struct Done {
    number: u32,
    began: Instant,
    ended: Instant,
}

/// What became of the publishes of one publisher.
#[derive(Default)]
struct History {
    done: Vec<Done>,
    unknown: BTreeSet<u32>,
    unavailable: u32,
}

/// Publishes numbers one after the other until it is told to stop.
async fn publish(container: Container, on: Topic, stop: Arc<AtomicBool>) -> History {
    let mut history = History::default();
    for number in 0.. {
        let began = Instant::now();
        let envelope = Envelope::new("n", &number).unwrap();
        match container.bus().publish(&on, &envelope).await {
            Ok(_) => history.done.push(Done {
                number,
                began,
                ended: Instant::now(),
            }),
            Err(error) if error.is_outcome_unknown() => drop(history.unknown.insert(number)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                history.unavailable += 1;
            }
        }
        if stop.load(Ordering::Acquire) {
            break;
        }
        // Thousands of messages a second say no more than hundreds.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    history
}

/// The numbers in the log, in its order.
async fn log(container: &Container, topic: &Topic) -> Vec<u32> {
    let at = redstart::store::Partition::of(topic);
    let store = container.store();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.log().browse(&at, after, 1000).await.unwrap();
        let Some((last, _)) = page.last() else {
            return all;
        };
        after = Some(*last);
        for (_, fields) in &page {
            let envelope: serde_json::Value = serde_json::from_slice(&fields[0].1).unwrap();
            all.push(u32::try_from(envelope["payload"].as_u64().unwrap()).unwrap());
        }
    }
}

/// Runs a fault under load and checks what became of all publishes.
///
/// `fault` ends once the failover is over, and returns the number of the former primary.
async fn check(watched: &mut Watched, fault: impl AsyncFnOnce(&mut Watched) -> usize) -> History {
    let namespace = watched.namespace();
    // The test reads the log itself.
    let builder = watched.builder(&namespace).with_codec(Codec::Json);
    let container = builder.connect().await.unwrap();
    let orders = topic("orders");
    // What was handled stays in the log, so that a lost message can be told from a trimmed one.
    let hour = Retention::Age(Duration::from_secs(3600));
    let settings = TopicSettings::default().with_retention(hour);
    container.topics().create(&orders, settings).await.unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let _ = sender.send(n);
        async {}
    };
    let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    let mut soon = Soon::subscribe(&container, topic("soon")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publish(container.clone(), orders.clone(), Arc::clone(&stop));
    let publishing = tokio::spawn(publishing);
    for _ in 0..50 {
        crate::support::next(&mut received).await;
    }
    let switched = watched.first_switch();
    let stalls = watch_stalls();
    let began = Instant::now();
    let former = fault(watched).await;
    let event = switched
        .recv_timeout(PATIENCE)
        .expect("the word of a sentinel");
    // The former primary would take publishes for some ten seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The readers have moved as well.
    let old = received.len();
    until("the readers to go on", async || {
        (received.len() > old + 50).then_some(())
    })
    .await;
    stop.store(true, Ordering::Release);
    let history = publishing.await.unwrap();
    // On a busy machine the sentinels may change the primary again, and the messages that no replica has
    // are lost with it.
    watched.until_replica(former);
    let replicated = Durability::replicated(1, Durability::MAX_TIMEOUT);
    soon.come_at_their_time(|| watched.builder(&namespace).with_durability(replicated))
        .await;
    // Another process finds the new primary by itself, whatever this one believes.
    let other = watched.builder(&namespace).connect().await.unwrap();
    drained(&other, &orders, &group("billing")).await;
    let kept = log(&other, &orders).await;
    finish(other).await;
    assert!(
        kept.is_sorted_by(|a, b| a < b),
        "the order of one publisher"
    );
    let kept: BTreeSet<u32> = kept.into_iter().collect();

    let stall = stalls();
    let limit = event + LIMIT + stall;
    let lost: Vec<&Done> = history
        .done
        .iter()
        .filter(|one| !kept.contains(&one.number))
        .collect();
    let late: Vec<u32> = lost
        .iter()
        .filter(|one| one.began > limit)
        .map(|one| one.number)
        .collect();
    let gap = history
        .done
        .windows(2)
        .map(|pair| pair[1].ended - pair[0].ended)
        .max();
    println!(
        "event after {:?}, acknowledged {}, lost {}, unknown {}, unavailable {}, gap {:?}, stall {stall:?}",
        event - began,
        history.done.len(),
        lost.len(),
        history.unknown.len(),
        history.unavailable,
        gap.unwrap()
    );
    assert!(late.is_empty(), "lost after the failover: {late:?}");
    let mut handled = BTreeSet::new();
    while let Ok(number) = received.try_recv() {
        handled.insert(number);
    }
    // The test itself has received the first ones.
    let unhandled = kept.iter().skip(50).find(|one| !handled.contains(one));
    assert_eq!(unhandled, None, "kept and never handled");
    finish(container).await;
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_is_left() {
    let mut watched = Watched::start(2, 3);
    let history = check(&mut watched, async |watched| {
        watched.servers[0].kill();
        watched.until_failed_over(0);
        watched.servers[0].start_again();
        0
    })
    .await;
    assert!(history.unknown.len() <= 2, "{:?}", history.unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_stood_still_is_left_though_it_answers_again() {
    let mut watched = Watched::start(3, 3);
    check(&mut watched, async |watched| {
        let pid = watched.servers[0].pid();
        signal(pid, "STOP");
        // It goes on before the sentinels can make it a replica, and answers as a primary until then.
        let new = watched.first_switch();
        new.recv_timeout(PATIENCE).expect("a failover");
        signal(pid, "CONT");
        watched.until_failed_over(0);
        0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planned_failovers_go_there_and_back() {
    let mut watched = Watched::start_with(2, 3, &[], CALM);
    for former in [0, 1] {
        let history = check(&mut watched, async |watched| {
            watched.fail_over(former);
            watched.until_failed_over(former);
            former
        })
        .await;
        assert_eq!(history.unavailable, 0);
        watched.until_known();
    }
}
