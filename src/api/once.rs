//! Running a function once per key, and recognising repeated ids.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::claim::OwnedClaim;
use crate::api::{ClaimResult, Kv};
use crate::domain::{Error, ErrorKind, ttl_millis};
use crate::wire::value;

/// The shortest lease: a claim is extended every third of it.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// How [`once_with`] claims a key and how long it remembers a run.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct OnceOptions {
    ttl: Duration,
    lease: Duration,
    at_most_once: bool,
}

impl OnceOptions {
    /// Remembers a completed run for `ttl`, at least one millisecond, with a lease of 30 seconds.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            lease: Duration::from_secs(30),
            at_most_once: false,
        }
    }

    /// Sets how long the claim outlives a process that dies: at least 100 milliseconds, by default
    /// 30 seconds. While the function runs, the claim is extended every third of it.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Marks the key as begun before the function runs, so that it never runs a second time within
    /// the time to live; by default not set.
    ///
    /// If the process dies, or the run cannot be recorded, later calls fail with
    /// [`ErrorKind::Begun`]. A person or a program then finds out what happened, and deletes the key
    /// to allow another run.
    /// An error of the function still releases the claim: return an error only when nothing was
    /// done, and return an unclear outcome, such as a timeout of a payment, as a result. The mark
    /// costs one more round trip.
    pub fn with_at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    fn check(&self, key: &str) -> Result<(), Error> {
        ttl_millis("once", Some(self.ttl)).map_err(|e| e.on(key))?;
        if self.lease < SHORTEST_LEASE {
            let rule = format!(
                "a lease is at least {SHORTEST_LEASE:?}, not {:?}",
                self.lease
            );
            return Err(Error::new(ErrorKind::Invalid, "once", rule).on(key));
        }
        Ok(())
    }
}

/// What [`once`] found or did.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Once<T> {
    /// The function ran here and the run is recorded.
    Executed(T),
    /// The function had run before. `None` when no result was stored: the result could not be
    /// encoded, or the key holds the mark `true`.
    AlreadyDone(Option<T>),
    /// Another caller is running the function now, or died less than a lease ago.
    InProgress,
}

/// Why [`once`] failed.
#[derive(Debug)]
pub enum OnceError<E> {
    /// The function failed and the claim was released, so a later call runs the function again.
    Function(E),
    /// The store failed. If the error is [`ErrorKind::LeaseLost`] or names the operation
    /// `complete`, the function has run and the run is not recorded; otherwise the function did not
    /// run.
    Store(Error),
}

impl<E> OnceError<E> {
    /// The error that it holds, as an error that both turn into: for `?` where the function fails with
    /// `anyhow::Error`, which is not a [`std::error::Error`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// use redstart::Kv;
    /// use redstart::kv::{Once, OnceError, once};
    ///
    /// # type Failure = Box<dyn std::error::Error + Send + Sync>;
    /// # async fn charge() -> Result<String, Failure> { Ok(String::new()) }
    /// // `Failure` stands for `anyhow::Error`, `eyre::Report` or an error of your own.
    /// async fn bill(kv: &Kv) -> Result<(), Failure> {
    ///     let charged = once(kv, "charge:7", Duration::from_secs(86_400), charge).await;
    ///     match charged.map_err(OnceError::flatten::<Failure>)? {
    ///         Once::Executed(receipt) => println!("{receipt}"),
    ///         Once::AlreadyDone(_) | Once::InProgress => {}
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = bill;
    /// ```
    pub fn flatten<T: From<E> + From<Error>>(self) -> T {
        match self {
            Self::Function(error) => error.into(),
            Self::Store(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for OnceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// The error that it holds is the source, so that rules by cause find it. Its text is the same, and
/// a chain of causes shows it once.
impl<E: StdError + 'static> StdError for OnceError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Function(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

/// Runs `function` once for a key and remembers its result for `ttl`.
///
/// The claim is atomic. A task of its own extends it while the function runs, so a function that
/// blocks its thread keeps the claim on a runtime with several threads. An owner token fences the
/// completion: a caller that was frozen beyond its lease cannot overwrite its successor.
///
/// Everything that can be refused is refused before the function runs. Afterwards the completion is
/// repeated for as long as the claim is held, for example while the server's memory is full. A
/// result that cannot be encoded and read again is not stored: later calls return
/// [`Once::AlreadyDone`] with `None`.
///
/// # What a crash means
///
/// The function's effect and its completion are two steps. If the process dies between them, or the
/// store stays out of reach for longer than the lease, the claim ends with its lease and a later
/// call **runs the function again**. An effect that must never happen twice needs an idempotency key
/// at the other side, or [`OnceOptions::with_at_most_once`]: later calls then fail with
/// [`ErrorKind::Begun`] instead.
///
/// # Errors
///
/// [`OnceError::Function`] with the function's own error; [`OnceError::Store`] with
/// [`Invalid`](ErrorKind::Invalid) for a key, a time to live or a lease that breaks its rule,
/// [`Decode`](ErrorKind::Decode) when the stored result is not a `T`, [`Refused`](ErrorKind::Refused)
/// when the key holds a value that `once` did not write, [`Begun`](ErrorKind::Begun) when a run with
/// [`with_at_most_once`](OnceOptions::with_at_most_once) was begun and never recorded,
/// [`LeaseLost`](ErrorKind::LeaseLost) when the claim passed to another caller while the function ran,
/// [`Unavailable`](ErrorKind::Unavailable) when it expired before the function ran, and the kinds of
/// the connection.
///
/// # Panics
///
/// Outside of a Tokio runtime.
///
/// # Cancel safety
///
/// When the future is dropped, the claim stays until its lease ends; until then other calls return
/// [`Once::InProgress`], and afterwards they run the function again.
///
/// # Example: a handler whose work may fail
///
/// A delivery can come again. `once` inside the handler skips the work that was completed, and
/// repeats the work that failed.
///
/// ```
/// use std::time::Duration;
///
/// use redstart::kv::{Once, OnceError, once};
/// use redstart::{Delivery, Kv, Message, Outcome, State};
/// # #[derive(serde::Deserialize)] struct Placed { id: u32 }
/// # impl Message for Placed { const TYPE: &'static str = "order.placed"; }
///
/// # async fn charge(order: u32) -> Result<String, std::io::Error> { Ok(format!("receipt-{order}")) }
/// async fn handle(State(kv): State<Kv>, order: Placed, delivery: Delivery) -> Outcome {
///     let key = format!("charge:{}", delivery.envelope().id());
///     let day = Duration::from_secs(86_400);
///     match once(&kv, &key, day, || charge(order.id)).await {
///         Ok(Once::Executed(_) | Once::AlreadyDone(_)) => Outcome::Ack,
///         Ok(Once::InProgress) => Outcome::snooze(Duration::from_secs(30)),
///         Err(OnceError::Function(error)) => Outcome::retry(error),
///         Err(OnceError::Store(error)) => Outcome::retry(error),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let container = redstart::Container::in_memory().await?;
/// let kv = container.kv();
/// let first = once(&kv, "charge:7", Duration::from_secs(60), || charge(7)).await?;
/// assert_eq!(first, Once::Executed("receipt-7".to_owned()));
/// let second = once(&kv, "charge:7", Duration::from_secs(60), || charge(7)).await?;
/// assert_eq!(second, Once::AlreadyDone(Some("receipt-7".to_owned())));
/// # Ok(())
/// # }
/// ```
pub async fn once<T, E, F, Fut>(
    kv: &Kv,
    key: &str,
    ttl: Duration,
    function: F,
) -> Result<Once<T>, OnceError<E>>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    once_with(kv, key, OnceOptions::new(ttl), function).await
}

/// Runs `function` once for a key, as [`once`] does, with its options.
///
/// # Errors
///
/// As [`once`].
///
/// # Panics
///
/// As [`once`].
///
/// # Cancel safety
///
/// As [`once`].
pub async fn once_with<T, E, F, Fut>(
    kv: &Kv,
    key: &str,
    options: OnceOptions,
    function: F,
) -> Result<Once<T>, OnceError<E>>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    options.check(key).map_err(OnceError::Store)?;
    let claimed = OwnedClaim::take(kv.port(), key, options.lease).await;
    let claim = match claimed.map_err(OnceError::Store)? {
        Ok(claim) => claim,
        Err(found) => return already::<T>(key, found).map_err(OnceError::Store),
    };
    if options.at_most_once {
        let begun = claim.begin(options.ttl).await;
        if let Err(error) = begun {
            claim.release().await;
            return Err(OnceError::Store(error));
        }
    }
    match claim.run(async { function().await }).await {
        Ok(result) => {
            let stored = readable(kv, key, &result);
            let completed = claim.complete(stored, options.ttl).await;
            completed.map_err(OnceError::Store)?;
            Ok(Once::Executed(result))
        }
        Err(error) => {
            claim.release().await;
            Err(OnceError::Function(error))
        }
    }
}

/// The answer for a key that could not be claimed.
fn already<T: DeserializeOwned>(key: &str, found: ClaimResult) -> Result<Once<T>, Error> {
    match found {
        ClaimResult::Claimed | ClaimResult::Busy => Ok(Once::InProgress),
        ClaimResult::Begun => {
            let rule = "the function began before and its end was never recorded; find out whether it \
                        was done, and delete the key to run it again";
            Err(Error::new(ErrorKind::Begun, "once", rule).on(key))
        }
        ClaimResult::Value => {
            let rule = "the key holds a value that `once` did not write; use a key of its own";
            Err(Error::new(ErrorKind::Refused, "once", rule).on(key))
        }
        ClaimResult::Done(None) => Ok(Once::AlreadyDone(None)),
        // No value is encoded as nothing: the run was completed without a result.
        ClaimResult::Done(Some(bytes)) if bytes.is_empty() => Ok(Once::AlreadyDone(None)),
        ClaimResult::Done(Some(bytes)) => {
            let rule = format!(
                "the function has run, but its stored result is not a {}",
                std::any::type_name::<T>()
            );
            let failed = |e| {
                Error::new(ErrorKind::Decode, "once", rule)
                    .on(key)
                    .because(e)
            };
            let result = value::decode(&bytes).map_err(failed)?;
            Ok(Once::AlreadyDone(Some(result)))
        }
    }
}

/// A result in its stored form; empty where a later call could not read it.
fn readable<T: Serialize + DeserializeOwned>(kv: &Kv, key: &str, result: &T) -> Bytes {
    let encode = || {
        let bytes = kv.encode(key, result)?;
        value::decode::<T>(&bytes).map(|_| bytes)
    };
    // A panic of the type's own code must not undo a function that has run.
    match catch_unwind(AssertUnwindSafe(encode)) {
        Ok(Ok(bytes)) => bytes,
        failed => {
            let error = failed.ok().and_then(Result::err);
            tracing::warn!(
                key,
                error = error.map(|e| e.to_string()),
                "the result of a completed function cannot be stored; the run is recorded without it"
            );
            Bytes::new()
        }
    }
}

/// Whether an event's id is new within `ttl`: true for exactly one caller.
///
/// One atomic command on the key `seen:<id>`. It marks the id **before** any work is done. In a
/// handler that can fail or crash after the mark, the retry finds the id marked, and the work is
/// never done. Use it only where losing an event is better than handling it twice, such as for a
/// notification. For all other work use [`once`], which marks the id when the work has ended.
///
/// # Errors
///
/// The kinds of the connection. After [`ErrorKind::OutcomeUnknown`] the id may count as seen.
///
/// # Cancel safety
///
/// When the future is dropped, the id may count as seen.
pub async fn first_time(kv: &Kv, event_id: &str, ttl: Duration) -> Result<bool, Error> {
    let key = format!("seen:{event_id}");
    kv.port()
        .insert_bytes(&key, Bytes::from_static(b"true"), ttl)
        .await
}
