//! The workers of a queue, which begin when there is work for them: an idle subscription has none.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

type Begin = Box<dyn Fn(&mut JoinSet<()>) + Send>;

/// The workers of a queue.
#[derive(Default)]
pub(crate) struct Crew(Mutex<State>);

#[derive(Default)]
struct State {
    workers: JoinSet<()>,
    most: usize,
    begin: Option<Begin>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Crew")
            .field("workers", &state.workers.len())
            .field("most", &state.most)
            .finish_non_exhaustive()
    }
}

impl Crew {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets up to `most` workers begin, each by a call of `begin`.
    pub(crate) fn hire(&self, most: usize, begin: impl Fn(&mut JoinSet<()>) + Send + 'static) {
        let mut state = self.state();
        state.most = most;
        state.begin = Some(Box::new(begin));
    }

    /// Begins one more worker, unless all have begun.
    pub(crate) fn grow(&self) {
        let mut state = self.state();
        if state.workers.len() < state.most
            // Outside of a runtime no task can begin; the next delivery comes from inside one.
            && Handle::try_current().is_ok()
        {
            let State { workers, begin, .. } = &mut *state;
            if let Some(begin) = begin {
                begin(workers);
            }
        }
    }

    /// Gives the workers away. No more begin.
    pub(crate) fn dismiss(&self) -> JoinSet<()> {
        let mut state = self.state();
        state.begin = None;
        std::mem::take(&mut state.workers)
    }
}
