//! `once` from its refusals to its completion: what a later call finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::api::{
    CasResult, ClaimResult, Kv, KvStore, Once, OnceError, OnceOptions, once, once_with,
};
use crate::domain::{BoxFuture, Codec, Error, ErrorKind};

/// A time to live or a lease that the store refuses is refused before the function runs.
pub async fn bad_times_are_refused_before_the_function_runs<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let day = OnceOptions::new(DAY);
    for options in [
        OnceOptions::new(Duration::MAX),
        OnceOptions::new(Duration::from_secs(u64::MAX)),
        OnceOptions::new(Duration::ZERO),
        OnceOptions::new(Duration::from_micros(500)),
        day.with_lease(Duration::ZERO),
        day.with_lease(Duration::from_millis(99)),
        day.with_lease(Duration::MAX),
    ] {
        let ran = AtomicU32::new(0);
        let charge = async || {
            ran.fetch_add(1, Ordering::SeqCst);
            Ok::<_, &str>(1)
        };
        let refused = once_with(&kv, "job", options, charge).await;
        let Err(OnceError::Store(error)) = refused else {
            panic!("{options:?}: {refused:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{options:?}");
        assert_eq!(ran.load(Ordering::SeqCst), 0, "{options:?}");
    }
    assert!(!kv.exists("job").await.must("asking"));
}

/// Runs a function that succeeds, three times, and expects that it ran once.
async fn runs_once_without_a_result<T>(kv: &Kv, key: &str, result: T)
where
    T: Clone + std::fmt::Debug + Serialize + serde::de::DeserializeOwned,
{
    let ran = AtomicU32::new(0);
    let run = async || {
        let function = async || {
            ran.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(result.clone())
        };
        once(kv, key, DAY, function).await.must("once")
    };
    let first = run().await;
    assert!(matches!(first, Once::Executed(_)), "{key}: {first:?}");
    for _ in 0..2 {
        let later = run().await;
        assert!(matches!(later, Once::AlreadyDone(None)), "{key}: {later:?}");
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1, "{key}");
}

/// A function that has succeeded counts as done, also where its result cannot be stored.
pub async fn an_unreadable_result_is_left_out<S: Subject>(subject: &S) {
    #[derive(Clone, Debug, Deserialize, Serialize)]
    #[serde(tag = "type")]
    enum Unreadable {
        Made { amount: u128 },
    }
    let stage = Stage::bare(subject).await;
    for codec in [Codec::MessagePack, Codec::Json] {
        let kv = stage.container.kv().with_codec(codec);
        let name = |kind: &str| format!("{kind} in {codec}");
        let deep: Value = (0..70).fold(json!(1), |inner, _| json!([inner]));
        runs_once_without_a_result(&kv, &name("deep"), deep).await;
        let unreadable = Unreadable::Made { amount: 5 };
        runs_once_without_a_result(&kv, &name("tagged"), unreadable).await;
    }
    let kv = stage.container.kv().with_codec(Codec::Json);
    runs_once_without_a_result(&kv, "keys", BTreeMap::from([((1, 2), 3)])).await;
    runs_once_without_a_result(&kv, "ratio", f64::NAN).await;
}

/// How a completion fails in [`Failing`].
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The server refuses so many.
    Refused(u32),
    /// The server refuses every completion that has a result.
    TooMuch,
    /// The server completes, and the first reply is lost.
    ReplyLost,
    /// The server is out of reach for completions and extensions.
    Away,
    /// The process stands still between the claim and the begin, and the claim expires.
    StandsStill,
}

fn away(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "out of reach")
}

/// A store whose completions fail.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn KvStore>,
    failure: Failure,
    completions: AtomicU32,
}

impl KvStore for Failing {
    fn get_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>> {
        self.inner.get_bytes(keys)
    }

    fn set_bytes<'a>(
        &'a self,
        entries: Vec<(&'a str, Bytes)>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.set_bytes(entries, ttl)
    }

    fn insert_bytes<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.insert_bytes(key, value, ttl)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.delete(key)
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.exists(key)
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        self.inner.incr(key, by)
    }

    fn cas_bytes<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Bytes>,
        new: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>> {
        self.inner.cas_bytes(key, expected, new, ttl)
    }

    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>> {
        self.inner.claim(key, token, lease)
    }

    fn begin_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            if let Failure::StandsStill = self.failure {
                self.inner.release_claim(key, token).await?;
            }
            self.inner.begin_claim(key, token, lease, ttl).await
        })
    }

    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        if let Failure::Away = self.failure {
            return Box::pin(std::future::ready(Err(away("extend"))));
        }
        self.inner.extend_claim(key, token, lease)
    }

    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let before = self.completions.fetch_add(1, Ordering::SeqCst);
            let fails = match self.failure {
                Failure::Refused(count) => before < count,
                Failure::TooMuch => !result.is_empty(),
                Failure::Away => return Err(away("complete")),
                Failure::StandsStill => false,
                Failure::ReplyLost => {
                    let done = self.inner.complete_claim(key, token, result, ttl).await;
                    if before == 0 {
                        let rule = "the reply was lost";
                        return Err(Error::new(ErrorKind::OutcomeUnknown, "complete", rule));
                    }
                    return done;
                }
            };
            if fails {
                return Err(Error::new(ErrorKind::Refused, "complete", "memory is full"));
            }
            self.inner.complete_claim(key, token, result, ttl).await
        })
    }

    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.release_claim(key, token)
    }
}

/// A completion is repeated while the claim is held, and in the end without its result.
pub async fn a_failed_completion_is_repeated<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    for (failure, stored) in [
        (Failure::Refused(2), Some(1)),
        (Failure::ReplyLost, Some(1)),
        (Failure::TooMuch, None),
    ] {
        let failing: Arc<dyn KvStore> = Arc::new(Failing {
            inner: Arc::clone(stage.container.kv().port()),
            failure,
            completions: AtomicU32::new(0),
        });
        let kv = Kv::from(failing);
        let key = format!("{failure:?}");
        let options = OnceOptions::new(DAY).with_lease(Duration::from_secs(2));
        let run = async |n: i32| {
            let done = once_with(&kv, &key, options, async || Ok::<_, &str>(n)).await;
            done.must("once")
        };
        assert_eq!(run(1).await, Once::Executed(1), "{key}");
        assert_eq!(run(2).await, Once::AlreadyDone(stored), "{key}");
    }
}

/// A completion is given up when the claim may have passed to another owner.
pub async fn a_completion_ends_with_its_claim<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing: Arc<dyn KvStore> = Arc::new(Failing {
        inner: Arc::clone(stage.container.kv().port()),
        failure: Failure::Away,
        completions: AtomicU32::new(0),
    });
    let kv = Kv::from(failing);
    let options = OnceOptions::new(DAY).with_lease(Duration::from_millis(100));
    let run = once_with(&kv, "job", options, async || Ok::<_, &str>(1));
    let run = tokio::time::timeout(subject.patience(), run).await;
    let Err(OnceError::Store(error)) = run.must("giving up") else {
        panic!("the run is not recorded")
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// The claim lives as long as its function, and ends with its lease when the function is dropped.
pub async fn a_run_can_set_its_lease<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let lease = Duration::from_millis(400);
    let options = OnceOptions::new(DAY).with_lease(lease);
    let run = async |n: i32, lasts: Duration| {
        let function = async || {
            tokio::time::sleep(lasts).await;
            Ok::<_, &str>(n)
        };
        once_with(&kv, "job", options, function).await
    };
    let lives = async || {
        kv.delete("job").await.must("deleting");
        let looks = async {
            tokio::time::sleep(lease * 2).await;
            run(2, Duration::ZERO).await
        };
        match tokio::join!(run(1, lease * 3), looks) {
            (Ok(Once::Executed(1)), Ok(Once::InProgress)) => Ok(()),
            both => Err(format!("{both:?}")),
        }
    };
    stage.steadily(lease, "a claim that is kept", lives).await;
    let is_dropped = async || {
        kv.delete("job").await.must("deleting");
        let dropped = tokio::time::timeout(lease / 2, run(3, DAY)).await;
        assert!(dropped.is_err(), "the function should still have run");
        match run(4, Duration::ZERO).await {
            Ok(Once::InProgress) => Ok(()),
            looked => Err(format!("{looked:?}")),
        }
    };
    stage
        .steadily(lease, "a claim that outlives its function", is_dropped)
        .await;
    stage
        .until("the dropped claim to end", async || {
            let next = run(5, Duration::ZERO).await;
            matches!(next, Ok(Once::Executed(5))).then_some(())
        })
        .await;
}

/// A stored result of another type is an error that says that the function has run.
pub async fn a_result_of_another_type_says_so<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let first = once(&kv, "job", DAY, async || {
        Ok::<_, &str>("receipt".to_owned())
    })
    .await;
    assert_eq!(first.must("once"), Once::Executed("receipt".to_owned()));
    let changed = once(&kv, "job", DAY, async || Ok::<_, &str>(1)).await;
    let Err(OnceError::Store(error)) = changed else {
        panic!("{changed:?}")
    };
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(
        error.to_string().contains("the function has run"),
        "{error}"
    );
    let read = kv.get::<String>("job").await.err().must("an error");
    assert_eq!(read.kind(), ErrorKind::Decode);
    assert!(read.to_string().contains("completed `once`"), "{read}");
}

/// > Its owner marked the claim as begun and let the lease end: nobody knows whether the work was
/// > done.
/// > Marks a claim as begun and keeps the mark for `ttl`, beyond the end of the lease. Returns false
/// > if the token no longer holds it.
pub async fn a_begun_claim_outlives_its_lease<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let port = kv.port();
    let claim = async |token| port.claim("job", token, DAY).await.must("claiming");
    let begin = async |token, lease, ttl| {
        let begun = port.begin_claim("job", token, lease, ttl).await;
        begun.must("beginning")
    };
    let short = Duration::from_millis(20);
    assert!(!begin("one", short, DAY).await, "nobody holds it");
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert!(!begin("two", short, DAY).await);
    assert!(!begin("on", short, DAY).await);
    assert!(begin("one", DAY, DAY).await);
    assert_eq!(claim("two").await, ClaimResult::Busy);
    let extend = async |token, lease| {
        let extended = port.extend_claim("job", token, lease).await;
        extended.must("extending")
    };
    assert!(!extend("two", DAY).await);
    assert!(extend("one", short).await);
    stage
        .until("the lease to end", async || {
            (claim("two").await == ClaimResult::Begun).then_some(())
        })
        .await;
    tokio::time::sleep(2 * short).await;
    assert_eq!(claim("two").await, ClaimResult::Begun, "the mark stays");
    // Nobody else can take it, so its owner still holds it.
    assert!(extend("one", DAY).await);
    assert_eq!(claim("two").await, ClaimResult::Busy);
    let result = Bytes::from_static(b"1");
    let complete = async |token| {
        let completed = port.complete_claim("job", token, result.clone(), DAY).await;
        completed.must("completing")
    };
    assert!(!complete("two").await);
    assert!(complete("one").await);
    assert!(complete("one").await, "a reply may be lost");
    assert_eq!(claim("two").await, ClaimResult::Done(Some(result.clone())));
    assert!(
        !begin("one", DAY, DAY).await,
        "completed work stays completed"
    );

    kv.delete("job").await.must("deleting");
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert!(begin("one", DAY, DAY).await);
    let released = port.release_claim("job", "two").await.must("releasing");
    assert!(!released);
    let released = port.release_claim("job", "one").await.must("releasing");
    assert!(released);
    // The longest times fit the mark.
    let longest = Duration::from_millis(i64::MAX.unsigned_abs() / 2);
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert!(begin("one", longest, longest).await);
    assert!(extend("one", longest).await);
    assert_eq!(claim("two").await, ClaimResult::Busy);
    assert!(port.release_claim("job", "one").await.must("releasing"));
    // The mark itself ends with its time to live, and an extension moves that.
    assert_eq!(claim("one").await, ClaimResult::Claimed);
    assert!(begin("one", short, short).await);
    assert!(extend("one", Duration::from_millis(100)).await);
    stage
        .until("the mark to end", async || {
            (claim("two").await == ClaimResult::Claimed).then_some(())
        })
        .await;
}

/// With `with_at_most_once`, a run whose end was not recorded is never repeated.
pub async fn a_run_that_may_not_repeat_is_refused_after_a_crash<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let lease = Duration::from_millis(400);
    let options = OnceOptions::new(DAY).with_at_most_once();
    let run = async |result: Result<i32, &'static str>| {
        once_with(&kv, "job", options, async move || result).await
    };
    let failed = run(Err("declined")).await;
    assert!(matches!(failed, Err(OnceError::Function("declined"))));
    assert_eq!(run(Ok(1)).await.must("once"), Once::Executed(1));
    assert_eq!(run(Ok(2)).await.must("once"), Once::AlreadyDone(Some(1)));

    let crashes = async || {
        kv.delete("job").await.must("deleting");
        let begun = AtomicU32::new(0);
        let hangs = once_with(&kv, "job", options.with_lease(lease), async || {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
            Ok::<_, &str>(3)
        });
        let crashed = tokio::time::timeout(lease / 2, hangs).await;
        assert!(crashed.is_err(), "the function should still have run");
        match run(Ok(4)).await {
            Ok(Once::InProgress) if begun.load(Ordering::SeqCst) == 0 => {
                Err("it did not begin".to_owned())
            }
            Ok(Once::InProgress) => Ok(()),
            looked => Err(format!("{looked:?}")),
        }
    };
    stage
        .steadily(lease, "a claim that outlives its function", crashes)
        .await;
    let error = stage
        .until("the lease to end", async || match run(Ok(5)).await {
            Ok(Once::InProgress) => None,
            Err(OnceError::Store(error)) => Some(error),
            other => panic!("{other:?}"),
        })
        .await;
    assert_eq!(error.kind(), ErrorKind::Begun);
    assert!(!error.is_retryable());
    let plain = once(&kv, "job", DAY, async || Ok::<_, &str>(6)).await;
    assert!(matches!(plain, Err(OnceError::Store(error)) if error.kind() == ErrorKind::Begun));
    let read = kv.get::<i32>("job").await.err().must("an error");
    assert!(read.to_string().contains("begun"), "{read}");
    kv.delete("job").await.must("deleting");
    assert_eq!(run(Ok(7)).await.must("once"), Once::Executed(7));
}

/// Where the claim expires before the function begins, the error says that nothing has run.
pub async fn a_function_whose_claim_expired_before_it_did_not_run<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let stands_still: Arc<dyn KvStore> = Arc::new(Failing {
        inner: Arc::clone(kv.port()),
        failure: Failure::StandsStill,
        completions: AtomicU32::new(0),
    });
    let options = OnceOptions::new(DAY).with_at_most_once();
    let run = async |kv: Kv| once_with(&kv, "job", options, async || Ok::<_, &str>(1)).await;
    let Err(OnceError::Store(error)) = run(Kv::from(stands_still)).await else {
        panic!("the claim was lost")
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable() && !error.is_outcome_unknown());
    assert_eq!(run(kv).await.must("once"), Once::Executed(1));
}
