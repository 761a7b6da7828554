//! Running a function once per key, and recognising repeated ids.

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

/// The lease of a claim, which is extended every third of it.
const LEASE: Duration = Duration::from_secs(30);

/// The result of [`once`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Once<T> {
    /// The function ran now, and its result is stored.
    Executed(T),
    /// The function ran before. Holds its stored result; `None` for a mark without one.
    AlreadyDone(Option<T>),
    /// Another caller runs the function now.
    InProgress,
}

/// Why [`once`] failed.
#[derive(Debug)]
pub enum OnceError<E> {
    /// The function failed. The claim was released, so a later call runs the function again.
    Function(E),
    /// The store failed, or the claim was lost while the function ran ([`ErrorKind::LeaseLost`]). The
    /// result was not recorded.
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

/// Runs `function` unless it has already run for this key, and stores its result for `ttl`.
///
/// The claim is atomic and is extended while the function runs. An owner token fences the completion:
/// a caller that was frozen beyond its lease cannot overwrite the result of its successor.
///
/// # Errors
///
/// [`OnceError::Function`] with the function's error, else [`OnceError::Store`].
///
/// # Cancel safety
///
/// Dropping the future leaves the claim until its lease of 30 seconds ends. Until then other callers
/// get [`Once::InProgress`].
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
            // If this fails, the claim ends with its lease.
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

/// Polls `work` to its end and extends the claim meanwhile.
async fn holding<T>(kv: &Kv, key: &str, token: &str, work: impl Future<Output = T>) -> T {
    let keeping = async {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            // The next extension may succeed, and a token fences the completion.
            let _ = kv.port().extend_claim(key, token, LEASE).await;
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = keeping => unreachable!("the keeper never ends"),
    }
}

/// Whether this is the first call for an event id within `ttl`.
///
/// Returns `true` exactly once per window, by one atomic command on the key `seen:<id>`.
///
/// # Errors
///
/// The kinds of the connection. After [`ErrorKind::OutcomeUnknown`] the id may be recorded.
pub async fn first_time(kv: &Kv, event_id: &str, ttl: Duration) -> Result<bool, Error> {
    let key = format!("seen:{event_id}");
    kv.port()
        .insert_bytes(&key, Bytes::from_static(b"true"), ttl)
        .await
}
