//! The gate through which handlers begin. It closes while a suspect runs alone.
//!
//! A message that kills its process takes the messages beside it along. Behind two crashes it runs
//! alone, so that its neighbours finish and only the message at fault uses up its attempts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long a suspect first waits for running handlers before it lets others begin again. The time
/// doubles, so that a suspect gets its turn beside slow handlers, and one that never returns does
/// not stop the subscription.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);
const MOST_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(crate) struct Gate {
    running: AtomicUsize,
    closed: AtomicBool,
    quiet: Notify,
    opened: Notify,
}

/// A running call of a handler.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Gate);

/// The right to run alone; dropping it opens the gate.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a Gate);

impl Gate {
    /// Enters while the gate is open. Two atomic operations, because every message passes here.
    pub(crate) fn try_enter(&self) -> Option<Turn<'_>> {
        // Before the look: `alone` closes the gate first and counts then, so one of the two sees
        // the other.
        self.running.fetch_add(1, Ordering::SeqCst);
        let turn = Turn(self);
        (!self.closed.load(Ordering::SeqCst)).then_some(turn)
    }

    /// Enters, and waits for the gate where it is closed.
    pub(crate) async fn enter(&self) -> Turn<'_> {
        loop {
            // Created before the look, so that an opening in between completes it.
            let opened = self.opened.notified();
            if let Some(turn) = self.try_enter() {
                return turn;
            }
            opened.await;
        }
    }

    /// Closes the gate and waits until nothing runs.
    pub(crate) async fn alone(&self) -> Alone<'_> {
        let mut patience = FIRST_PATIENCE;
        loop {
            self.closed.store(true, Ordering::SeqCst);
            let alone = Alone(self);
            if timeout(patience, self.until_quiet()).await.is_ok() {
                return alone;
            }
            drop(alone);
            sleep(patience).await;
            patience = (2 * patience).min(MOST_PATIENCE);
        }
    }

    async fn until_quiet(&self) {
        while self.running.load(Ordering::SeqCst) > 0 {
            // `Notify` keeps the permit of a turn that ends between the look and the wait.
            self.quiet.notified().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let running = self.0.running.fetch_sub(1, Ordering::SeqCst) - 1;
        if running == 0 && self.0.closed.load(Ordering::SeqCst) {
            self.0.quiet.notify_one();
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.closed.store(false, Ordering::SeqCst);
        self.0.opened.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn nothing_runs_beside_the_one_that_is_alone() {
        let gate = Arc::new(Gate::default());
        let turn = gate.try_enter().unwrap();
        let (inside, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let alone = tokio::spawn({
            let (gate, inside, done) = (Arc::clone(&gate), Arc::clone(&inside), Arc::clone(&done));
            async move {
                let _alone = gate.alone().await;
                inside.notify_one();
                done.notified().await;
            }
        });
        tokio::task::yield_now().await;
        assert!(gate.try_enter().is_none(), "it is closed at once");
        drop(turn);
        inside.notified().await;
        let next = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move {
                let _turn = gate.enter().await;
            }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!next.is_finished());
        done.notify_one();
        alone.await.unwrap();
        next.await.unwrap();
        assert!(gate.try_enter().is_some());
    }
}
