//! Order by key: which messages wait for others.

use super::support::{FOUR, LONG_LEASE, of_keys, owning};
use crate::api::Ownership;
use crate::domain::TopicSettings;
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{Must as _, Stage, topic};

/// The messages of a key are handled in the order in which they were published, those of different keys
/// at once; with several partitions, and with one.
pub async fn the_messages_of_a_key_are_handled_in_their_order<S: Subject>(subject: &S) {
    for partitions in [FOUR, 1] {
        let mut stage = Stage::bare(subject).await;
        stage.move_to(topic(&format!("orders-{partitions}")));
        let settings = TopicSettings::default().with_partitions(partitions);
        let made = stage.store.topics().ensure_topic(&stage.topic, settings);
        made.await.must("creating the topic");
        stage.publish_keys(0..200).await;
        let (subscription, mut seen) = stage.own(&stage.container, owning(3), |_| 0).await;
        stage.publish_keys(200..400).await;
        let seen = stage.some(&mut seen, 400).await;
        for (key, numbers) in (0..).zip(of_keys(&seen)) {
            let expected: Vec<u32> = (0..40).map(|n| 10 * n + key).collect();
            assert_eq!(numbers, expected, "key {key} of {partitions}");
        }
        stage.drained().await;
        let report = subscription.unsubscribe(subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(stage.owners_of().await, [], "it has left");
    }
}

/// A failed message holds back the later ones of its key and no others; after its last attempt it is a
/// dead letter with the error of each attempt, and its key goes on.
pub async fn a_failed_message_holds_back_its_key<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    stage.publish_keys(0..40).await;
    let fails = |n| match n {
        3 => 2,
        4 => 9,
        _ => 0,
    };
    let (_subscription, mut seen) = stage.own(&stage.container, owning(3), fails).await;
    let seen = stage.some(&mut seen, 40 + 4).await;
    for (key, numbers) in (0..).zip(of_keys(&seen)) {
        assert_eq!(numbers, [key, key + 10, key + 20, key + 30], "key {key}");
    }
    for n in [3, 4] {
        let attempts = seen.iter().filter(|one| one.0 == n).map(|one| one.1);
        assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3], "{n}");
    }
    stage.drained().await;
    let letters = stage.letters().await;
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((letter.attempts, &letter.error[..]), (3, "not yet"));
    assert_eq!(letter.history.failures.len(), 3);
    assert_eq!(stage.status().await.dead, 1);
    stage.finish().await;
}

/// With [`Ownership::letting_pass`], later messages of the key pass the failed one, which comes back
/// through the store.
pub async fn a_failed_message_lets_its_key_pass<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    stage.publish_keys(0..40).await;
    let options = owning(3).with_ownership(Ownership::new().with_lease(LONG_LEASE).letting_pass());
    let (_subscription, mut seen) = stage
        .own(&stage.container, options, |n| u32::from(n == 3))
        .await;
    let seen = stage.some(&mut seen, 41).await;
    let of_key = seen.iter().filter(|(n, _)| n % 10 == 3);
    let numbers: Vec<u32> = of_key.map(|(n, _)| *n).collect();
    assert_eq!(numbers.len(), 5, "{numbers:?}");
    assert!(
        numbers[..2] == [3, 13],
        "the next one did not wait: {numbers:?}"
    );
    stage.drained().await;
    stage.finish().await;
}
