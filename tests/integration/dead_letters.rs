//! Listing, redriving and purging dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Outcome, SubscribeOptions, Topic,
    dead_letters::{CountBy, DeadLetter, DeadLetterFilter, Reason, Sweep},
    envelope::EntryId,
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::support::{
    Server, container, drained, finish, group, letters, next, publish, some, topic, until,
};

/// Two groups; `failing` rejects every message until it is repaired. Both send each message to the test.
async fn two_groups(
    container: &Container,
    on: &Topic,
) -> (Arc<AtomicBool>, UnboundedReceiver<(String, u32, u32)>) {
    let mended = Arc::new(AtomicBool::new(false));
    let (sender, received) = mpsc::unbounded_channel();
    for name in ["failing", "fine"] {
        let (sender, mended) = (sender.clone(), Arc::clone(&mended));
        let options = SubscribeOptions::new().with_group(group(name));
        let _subscription = container
            .bus()
            .subscribe_with(
                on,
                options,
                move |Payload(n): Payload<u32>, delivery: Delivery| {
                    let _ = sender.send((name.to_owned(), n, delivery.attempt()));
                    let bad = name == "failing" && !mended.load(Ordering::SeqCst);
                    async move {
                        if bad {
                            return Outcome::dead_letter("broken");
                        }
                        Outcome::Ack
                    }
                },
            )
            .await
            .unwrap();
    }
    (mended, received)
}

/// The dead letters of `failing`, once there are `count`.
async fn dead(container: &Container, on: &Topic, count: usize) -> Vec<DeadLetter> {
    until("the dead letters", async || {
        let letters = letters(container, on, &group("failing")).await;
        (letters.len() == count).then_some(letters)
    })
    .await
}

#[tokio::test]
async fn redrive_returns_messages_to_the_group_that_failed_them() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (mended, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 0..10).await;
    some(&mut received, 20).await;
    let all = dead(&container, &orders, 10).await;
    let ids: Vec<EntryId> = all.iter().map(|letter| letter.id).collect();
    mended.store(true, Ordering::SeqCst);

    let dead = container.dead_letters();
    let unknown = EntryId::new(1, 1);
    let asked: Vec<EntryId> = ids[..7].iter().copied().chain([unknown]).collect();
    let result = dead
        .redrive(&orders, &group("failing"), &asked)
        .await
        .unwrap();
    assert_eq!(result.moved, ids[..7]);
    assert_eq!(result.missing, [unknown]);
    let again = some(&mut received, 7).await;
    for (name, _, attempt) in &again {
        assert_eq!(
            (name.as_str(), *attempt),
            ("failing", 1),
            "attempts restart"
        );
    }
    drained(&container, &orders, &group("failing")).await;
    assert!(
        received.try_recv().is_err(),
        "no other group saw them again"
    );
    let left = letters(&container, &orders, &group("failing")).await;
    assert_eq!(
        left.iter().map(|letter| letter.id).collect::<Vec<_>>(),
        ids[7..]
    );
    let causes = dead.causes(&orders, &group("failing")).await.unwrap();
    assert_eq!((causes[0].reason, causes[0].count), (Reason::Rejected, 3));
    finish(container).await;
}

#[tokio::test]
async fn two_redrives_at_once_move_every_record_once() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (mended, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 0..300).await;
    some(&mut received, 600).await;
    let letters = dead(&container, &orders, 300).await;
    let ids: Vec<EntryId> = letters.iter().map(|letter| letter.id).collect();
    mended.store(true, Ordering::SeqCst);
    let redrive = || {
        let (dead, orders, ids) = (container.dead_letters(), orders.clone(), ids.clone());
        tokio::spawn(async move {
            let mut moved = 0;
            for ids in ids.chunks(10) {
                let result = dead.redrive(&orders, &group("failing"), ids).await.unwrap();
                moved += result.moved.len();
            }
            moved
        })
    };
    let (one, two) = (redrive(), redrive());
    assert_eq!(one.await.unwrap() + two.await.unwrap(), 300);
    let again: Vec<u32> = some(&mut received, 300)
        .await
        .iter()
        .map(|seen| seen.1)
        .collect();
    assert_eq!(again, (0..300).collect::<Vec<_>>());
    drained(&container, &orders, &group("failing")).await;
    assert!(received.try_recv().is_err());
    finish(container).await;
}

#[tokio::test]
async fn a_redriven_message_that_dies_again_is_one_record_that_says_so() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (_mended, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 7..8).await;
    some(&mut received, 2).await;
    let first = dead(&container, &orders, 1).await.remove(0);
    assert_eq!(first.history.redriven, 0);
    let dead = container.dead_letters();
    dead.redrive(&orders, &group("failing"), &[first.id])
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, ("failing".to_owned(), 7, 1));
    let second = until("it to die again", async || {
        let mut all = letters(&container, &orders, &group("failing")).await;
        (all.len() == 1 && all[0].id != first.id).then(|| all.remove(0))
    })
    .await;
    assert_eq!(second.history.redriven, 1);
    assert_eq!(second.attempts, 1);
    assert_eq!(second.history.origin, first.history.origin);
    assert_eq!(second.history.failures.len(), 2, "the history goes on");
    finish(container).await;
}

#[tokio::test]
async fn a_purge_is_final_and_does_not_shift_pages() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (_mended, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 0..25).await;
    some(&mut received, 50).await;
    dead(&container, &orders, 25).await;
    let (dead, failing) = (container.dead_letters(), group("failing"));
    let all = DeadLetterFilter::default();
    let page = dead.list(&orders, &failing, &all, None, 10).await.unwrap();
    let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
    let purged = dead.purge(&orders, &failing, &ids).await.unwrap();
    assert_eq!(purged.moved, ids);
    let again = dead.purge(&orders, &failing, &ids).await.unwrap();
    assert_eq!((again.moved.len(), again.missing), (0, ids.clone()));
    let next_page = dead
        .list(&orders, &failing, &all, page.next, 100)
        .await
        .unwrap();
    assert_eq!(next_page.items.len(), 15);
    assert!(dead.get(&orders, &failing, &ids).await.unwrap().is_empty());
    let rest: Vec<EntryId> = next_page.items.iter().map(|(id, _)| *id).collect();
    let kept = dead.get(&orders, &failing, &rest).await.unwrap();
    assert_eq!(kept.len(), 15);
    assert_eq!(kept[0].summary(), next_page.items[0].1);
    dead.purge(&orders, &failing, &rest).await.unwrap();
    assert!(dead.causes(&orders, &failing).await.unwrap().is_empty());
    finish(container).await;
}

#[tokio::test]
async fn an_unreadable_summary_hides_no_other_and_can_be_purged() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (_, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 0..2).await;
    some(&mut received, 4).await;
    let sound = dead(&container, &orders, 2).await;
    let heads = "{shop:orders}:group:failing:dead";
    let broken: String = server.command(&["XADD", heads, "*", "head", "nonsense"]);
    let _: u64 = server.command(&["HSET", &format!("{heads}:body"), &broken, "nonsense"]);
    publish(&container, &orders, 2..3).await;
    let (letters, failing) = (container.dead_letters(), group("failing"));
    let list = async |filter: &DeadLetterFilter| {
        let page = letters.list(&orders, &failing, filter, None, 10).await;
        page.unwrap().items
    };
    let everything = DeadLetterFilter::default();
    let all = until("four of them", async || {
        Some(list(&everything).await).filter(|all| all.len() == 4)
    })
    .await;
    assert_eq!(all[1].0, sound[1].id);
    assert_eq!(
        (all[2].0.to_string(), all[2].1.reason),
        (broken, Reason::Undecodable)
    );
    let unreadable = everything.with_error("head cannot be read").unwrap();
    assert_eq!(list(&unreadable).await, [all[2].clone()]);
    let error = letters
        .get(&orders, &failing, &[all[2].0])
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&all[2].0.to_string()), "{error}");
    let purge = Sweep::purge(unreadable.clone());
    let swept = letters.sweep(&orders, &failing, purge, &|_| {}).await;
    assert_eq!(swept.unwrap().progress.taken, 1);
    assert_eq!(list(&unreadable).await, []);
    let causes = letters.causes(&orders, &failing).await.unwrap();
    assert_eq!(causes.iter().map(|cause| cause.count).sum::<u64>(), 3);
    // The unreadable summary was never counted and is not subtracted.
    let tenants = letters.counts(&orders, &failing, CountBy::Tenant).await;
    let count = tenants
        .unwrap()
        .iter()
        .map(|(_, count)| *count)
        .sum::<u64>();
    assert_eq!(count, 3);
    finish(container).await;
}

#[tokio::test]
async fn a_moved_dead_letter_is_counted_while_another_count_runs() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let (_mended, mut received) = two_groups(&container, &orders).await;
    publish(&container, &orders, 0..60).await;
    some(&mut received, 120).await;
    let all = dead(&container, &orders, 60).await;

    // Another caller, which keeps moving dead letters.
    let key = "{shop:orders}:group:failing:dead:uncounted";
    let ended = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (ended, mut raw) = (Arc::clone(&ended), server.raw());
        move || {
            for n in 0_u64.. {
                let command = &mut redis::cmd("HSET");
                command.arg(key).arg("other").arg(n);
                command.exec(&mut raw).unwrap();
                if ended.load(Ordering::SeqCst) {
                    return;
                }
            }
        }
    });
    let dead = container.dead_letters();
    for letter in &all[..50] {
        let purged = dead.purge(&orders, &group("failing"), &[letter.id]).await;
        assert_eq!(purged.unwrap().moved, [letter.id]);
    }
    ended.store(true, Ordering::SeqCst);
    other.join().unwrap();
    let uncounted: u64 = server.command(&["HLEN", key]);
    assert!(uncounted <= 9, "{uncounted} fields");
    let causes = dead.causes(&orders, &group("failing")).await.unwrap();
    assert_eq!(causes.iter().map(|cause| cause.count).sum::<u64>(), 10);
    finish(container).await;
}
