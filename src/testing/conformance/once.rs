//! `once`, claims and deduplication.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::api::{ClaimResult, Once, OnceError, first_time, once};
use crate::domain::ErrorKind;

/// Executed, already done with its result, or in progress; an error releases the claim.
pub async fn every_state_of_once<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let run = async |result: Result<i32, &'static str>| {
        once(&kv, "job", DAY, || async move { result }).await
    };
    let failed = run(Err("no")).await;
    assert!(
        matches!(failed, Err(OnceError::Function("no"))),
        "{failed:?}"
    );
    assert_eq!(run(Ok(7)).await.must("once"), Once::Executed(7));
    assert_eq!(run(Ok(8)).await.must("once"), Once::AlreadyDone(Some(7)));
    kv.delete("job").await.must("deleting");
    let claimed = kv.port().claim("job", "other", DAY).await.must("claiming");
    assert_eq!(claimed, ClaimResult::Claimed);
    assert_eq!(run(Ok(9)).await.must("once"), Once::InProgress);
}

/// > The claim was completed. Holds the stored result, if there is one.
/// > The key holds a value that no claim wrote.
pub async fn true_counts_as_done_and_another_value_is_refused<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let bytes = Bytes::from_static;
    for (value, wanted) in [
        (&b"true"[..], ClaimResult::Done(None)),
        (b"\xC1\xC3", ClaimResult::Done(None)),
        (b"", ClaimResult::Value),
        (b"{}", ClaimResult::Value),
        (b"\x01", ClaimResult::Value),
        (b"7", ClaimResult::Value),
        (b"\xC1\xC2", ClaimResult::Value),
    ] {
        let entries = vec![("job", bytes(value))];
        kv.port().set_bytes(entries, None).await.must("setting");
        let claim = kv.port().claim("job", "late", DAY).await.must("claiming");
        assert_eq!(claim, wanted, "{value:?}");
        let done = once(&kv, "job", DAY, async || Ok::<_, &str>(1)).await;
        match wanted {
            ClaimResult::Done(_) => assert_eq!(done.must("once"), Once::AlreadyDone(None)),
            _ => {
                let Err(OnceError::Store(error)) = done else {
                    panic!("{done:?}")
                };
                assert_eq!(error.kind(), ErrorKind::Refused);
            }
        }
        let held = kv.port().get_bytes(&["job"]).await.must("getting");
        assert_eq!(held, [Some(bytes(value))], "untouched");
    }
}

/// > Claims a key for an owner's token. Claiming again with the same token succeeds.
/// > Another owner holds the claim.
pub async fn only_the_owner_settles_a_claim<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let claim = async |token| kv.port().claim("job", token, DAY).await.must("claiming");
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert_eq!(claim("two").await, ClaimResult::Busy);
    // A token that starts like another one is a different token.
    assert_eq!(claim("on").await, ClaimResult::Busy);
    let released = kv
        .port()
        .release_claim("job", "two")
        .await
        .must("releasing");
    assert!(!released);
    assert!(
        kv.port()
            .release_claim("job", "one")
            .await
            .must("releasing")
    );
    assert_eq!(claim("two").await, ClaimResult::Claimed);
}

/// > The caller holds the claim for the time of its lease.
/// > Extends a claim. Returns false if the token no longer holds it.
pub async fn a_claim_ends_with_its_lease<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let short = Duration::from_millis(20);
    kv.port()
        .claim("job", "frozen", short)
        .await
        .must("claiming");
    stage
        .until("the claim to end", async || {
            let claim = kv.port().claim("job", "next", DAY).await.must("claiming");
            (claim == ClaimResult::Claimed).then_some(())
        })
        .await;
    let extend = async |token, lease| {
        let held = kv.port().extend_claim("job", token, lease).await;
        held.must("extending")
    };
    assert!(!extend("frozen", DAY).await);
    assert!(extend("next", short).await);
    stage
        .until("the shortened claim to end", async || {
            (!kv.exists("job").await.must("asking")).then_some(())
        })
        .await;
    assert!(!extend("next", DAY).await);
}

/// > Turns a claim into a stored result. Writes nothing and returns false if the
/// > token no longer holds it.
/// > Releases a claim for other owners. Returns false if the token does not hold it.
pub async fn completion_is_fenced<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let result = once(&kv, "job", DAY, async || {
        // As if this process had been frozen beyond its lease and another had taken over.
        kv.delete("job").await.must("deleting");
        kv.port()
            .claim("job", "successor", DAY)
            .await
            .must("claiming");
        Ok::<_, std::io::Error>(1)
    })
    .await;
    let Err(OnceError::Store(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let done = Bytes::from_static(b"2");
    let complete = async |token| {
        let completed = kv
            .port()
            .complete_claim("job", token, done.clone(), DAY)
            .await;
        completed.must("completing")
    };
    assert!(!complete("stranger").await);
    assert!(complete("successor").await);
    assert!(complete("successor").await, "a reply may be lost");
    let claim = kv.port().claim("job", "late", DAY).await.must("claiming");
    assert_eq!(claim, ClaimResult::Done(Some(done.clone())));
    let released = kv.port().release_claim("job", "successor").await;
    assert!(!released.must("releasing"), "what is done stays done");
}

/// Of many callers at once exactly one runs the function, and exactly one is the first.
pub async fn concurrent_callers_run_once<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let runs = Arc::new(AtomicU32::new(0));
    let tasks = (0..24).map(|_| {
        let (kv, runs) = (stage.container.kv(), Arc::clone(&runs));
        tokio::spawn(async move {
            let outcome = once(&kv, "job", DAY, || async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(1)
            });
            let outcome = outcome.await.must("once");
            let first = first_time(&kv, "event-1", DAY).await;
            let ran = matches!(outcome, Once::Executed(_));
            (u32::from(ran), u32::from(first.must("deduplicating")))
        })
    });
    let (mut ran, mut first) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let one = task.await.must("a task");
        ran += one.0;
        first += one.1;
    }
    assert_eq!((ran, first, runs.load(Ordering::SeqCst)), (1, 1, 1));
}
