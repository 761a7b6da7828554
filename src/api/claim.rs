//! A claim on a key that this process holds.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::supervise::Watch;
use crate::api::{ClaimResult, KvStore};
use crate::domain::{Error, ErrorKind};

/// The first pause between two attempts to complete; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A claim that a task of its own keeps alive until it is dropped.
#[derive(Debug)]
pub(super) struct OwnedClaim {
    port: Arc<dyn KvStore>,
    key: String,
    token: String,
    lease: Duration,
    taken: Instant,
    /// When the store last said that the claim is held.
    confirmed: Arc<Mutex<Instant>>,
    keeper: JoinHandle<()>,
}

impl Drop for OwnedClaim {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl OwnedClaim {
    /// Claims a key, or says what it holds instead.
    pub(super) async fn take(
        port: &Arc<dyn KvStore>,
        key: &str,
        lease: Duration,
    ) -> Result<Result<Self, ClaimResult>, Error> {
        let token = Uuid::new_v4().to_string();
        let taken = Instant::now();
        match port.claim(key, &token, lease).await? {
            ClaimResult::Claimed => {}
            found => return Ok(Err(found)),
        }
        let confirmed = Arc::new(Mutex::new(taken));
        let (started, starts) = oneshot::channel();
        let kept = {
            let (port, key, token) = (Arc::clone(port), key.to_owned(), token.clone());
            let confirmed = Arc::clone(&confirmed);
            let keep = move |_| {
                let confirmed = Arc::clone(&confirmed);
                keep(
                    Arc::clone(&port),
                    key.clone(),
                    token.clone(),
                    lease,
                    confirmed,
                )
            };
            Watch::default().supervise("the keeper of a claim", keep)
        };
        let keeper = tokio::spawn(async move {
            let _ = started.send(());
            kept.await;
        });
        let held = Self {
            port: Arc::clone(port),
            key: key.to_owned(),
            token,
            lease,
            taken,
            confirmed,
            keeper,
        };
        // No other thread takes over the task that this one has spawned last, and the function may
        // block this one.
        let _ = starts.await;
        Ok(Ok(held))
    }

    /// Marks the claim as begun for `ttl`. From then on the function does not run a second time. Where
    /// the claim is lost, nothing has run: `LeaseLost` would say that the function has.
    pub(super) async fn begin(&self, ttl: Duration) -> Result<(), Error> {
        let begun = self
            .port
            .begin_claim(&self.key, &self.token, self.lease, ttl);
        if begun.await? {
            return Ok(());
        }
        let rule = "the claim expired before the function ran; nothing was done";
        Err(Error::new(ErrorKind::Unavailable, "once", rule).on(&self.key))
    }

    /// Runs the function's future. It may block this thread, which may own the timers and sockets of
    /// the runtime while every other thread sleeps. Waking one before each poll hands them over, so
    /// that the keeper goes on.
    pub(super) async fn run<T>(&self, function: impl Future<Output = T>) -> T {
        let mut function = pin!(function);
        let has_threads = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
        poll_fn(|context| {
            if has_threads {
                // The second task moves the first to where other threads look for work.
                tokio::spawn(std::future::ready(()));
                tokio::spawn(std::future::ready(()));
            }
            function.as_mut().poll(context)
        })
        .await
    }

    /// Records that the function has run. Repeats while the claim is held: giving up would let
    /// another caller run the function a second time.
    pub(super) async fn complete(self, result: Bytes, ttl: Duration) -> Result<(), Error> {
        let mut stored = result;
        let mut pause = FIRST_PAUSE;
        loop {
            let completion = self
                .port
                .complete_claim(&self.key, &self.token, stored.clone(), ttl);
            let error = match completion.await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(self.lost()),
                Err(error) => error,
            };
            if is_final(error.kind()) || !self.is_owned() {
                return Err(error);
            }
            // A server that refuses for a whole lease may never take this result. That the function
            // has run matters more.
            if error.kind() == ErrorKind::Refused && self.taken.elapsed() > self.lease {
                stored = Bytes::new();
            }
            sleep(pause.min(self.lease / 6)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Gives the claim up. If the store does not hear of it, the claim ends with its lease.
    pub(super) async fn release(self) {
        let _ = self.port.release_claim(&self.key, &self.token).await;
    }

    fn is_owned(&self) -> bool {
        let confirmed = *self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        confirmed.elapsed() < self.lease
    }

    fn lost(&self) -> Error {
        let rule = "the function has run, but the claim has passed to another owner or expired";
        Error::new(ErrorKind::LeaseLost, "once", rule).on(&self.key)
    }
}

/// Whether repeating cannot help.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Invalid | ErrorKind::Encode | ErrorKind::Closed
    )
}

/// Extends a claim every third of its lease until it is lost.
async fn keep(
    port: Arc<dyn KvStore>,
    key: String,
    token: String,
    lease: Duration,
    confirmed: Arc<Mutex<Instant>>,
) {
    loop {
        sleep(lease / 3).await;
        let asked = Instant::now();
        match port.extend_claim(&key, &token, lease).await {
            Ok(true) => *confirmed.lock().unwrap_or_else(PoisonError::into_inner) = asked,
            Ok(false) => return,
            // The next extension may succeed, and the completion is fenced.
            Err(error) => tracing::debug!(key, %error, "a claim was not extended"),
        }
    }
}
