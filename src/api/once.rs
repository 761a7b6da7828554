//! Doing something once, and telling a message that was seen before.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::api::{ClaimResult, Kv};
use crate::domain::{Error, ErrorKind};
use crate::wire::value;

/// How long a claim lives without being extended; it is extended every third of that.
const LEASE: Duration = Duration::from_secs(30);

/// What came of [`once`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Once<T> {
    /// The function ran here, and its result is stored.
    Executed(T),
    /// It had run before; with its result, unless the older store's plain mark was found.
    AlreadyDone(Option<T>),
    /// Another caller is running it now.
    InProgress,
}

/// Why [`once`] failed.
#[derive(Debug)]
pub enum OnceError<E> {
    /// The function failed; the claim was given up, so that a later call may try.
    Function(E),
    /// The store failed, or the claim was lost while the function ran
    /// ([`ErrorKind::LeaseLost`]): its result was not recorded.
    Store(Error),
}

impl<E: fmt::Display> fmt::Display for OnceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for OnceError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Function(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

/// Runs `function` at most once for a key, and remembers its result for `ttl`.
///
/// The claim is atomic and is extended while the function runs; completion is fenced by an
/// owner token, so a caller that was frozen beyond its lease cannot overwrite its successor.
///
/// # Errors
///
/// [`OnceError::Function`] with the function's own error; [`OnceError::Store`] otherwise.
///
/// # Cancel safety
///
/// When the future is dropped the claim stays until its lease of 30 seconds ends; until then
/// others see [`Once::InProgress`].
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
    let token = Uuid::new_v4().to_string();
    match kv
        .port()
        .claim(key, &token, LEASE)
        .await
        .map_err(OnceError::Store)?
    {
        ClaimResult::Busy => return Ok(Once::InProgress),
        ClaimResult::Done(None) => return Ok(Once::AlreadyDone(None)),
        ClaimResult::Done(Some(bytes)) => {
            let result = value::decode(&bytes).map_err(|e| OnceError::Store(e.on(key)))?;
            return Ok(Once::AlreadyDone(Some(result)));
        }
        ClaimResult::Claimed => {}
    }
    let recorded = match holding(kv, key, &token, function()).await {
        Ok(result) => kv.encode(key, &result).map(|bytes| (result, bytes)),
        Err(error) => {
            // Best effort: where it fails, the claim ends with its lease.
            let _ = kv.port().release_claim(key, &token).await;
            return Err(OnceError::Function(error));
        }
    };
    let (result, bytes) = match recorded {
        Ok(recorded) => recorded,
        Err(error) => {
            let _ = kv.port().release_claim(key, &token).await;
            return Err(OnceError::Store(error));
        }
    };
    match kv.port().complete_claim(key, &token, bytes, ttl).await {
        Ok(true) => Ok(Once::Executed(result)),
        Ok(false) => Err(OnceError::Store(
            Error::new(
                ErrorKind::LeaseLost,
                "once",
                "the claim passed to another owner",
            )
            .on(key),
        )),
        Err(error) => Err(OnceError::Store(error)),
    }
}

/// Polls `work` to its end while keeping the claim alive.
async fn holding<T>(kv: &Kv, key: &str, token: &str, work: impl Future<Output = T>) -> T {
    let keeping = async {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            // A failed extension is not the end: the next may succeed, and completion is fenced.
            let _ = kv.port().extend_claim(key, token, LEASE).await;
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = keeping => unreachable!("the keeper never ends"),
    }
}

/// Whether this is the first time an event's id is seen within `ttl`.
///
/// True exactly once per window, by one atomic command on the key `seen:<id>`.
///
/// # Errors
///
/// The kinds of the connection. After [`ErrorKind::OutcomeUnknown`] the id may count as seen.
pub async fn first_time(kv: &Kv, event_id: &str, ttl: Duration) -> Result<bool, Error> {
    let key = format!("seen:{event_id}");
    kv.port()
        .insert_bytes(&key, Bytes::from_static(b"true"), ttl)
        .await
}
