//! Commits without a delivery: numbered calls, one at a time, each repeated until it is answered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::supervise::back_off;
use crate::domain::{Error, ErrorKind, describe};
use crate::store::{Effect, EffectFate, MAX_COMMITS, Session, Store};

/// How long a call whose outcome is unknown is repeated: half of the time for which the store
/// remembers its answer.
const REPEATS: Duration = Duration::from_secs(12 * 60 * 60);
/// The most bytes of a call that has more than one commit.
const CALL_BYTES: usize = 1024 * 1024;
/// The space of a lane: two calls of the largest size, or 2,048 small commits. Further callers wait with
/// their own effects; dropped, they have committed nothing.
const LANE_KIBIBYTES: u32 = 2 * 1024;

type Answer = Result<EffectFate, Error>;

/// The commits of a container, in lanes: a server that is away holds up the commits of its own slots only.
#[derive(Debug)]
pub(super) struct OutsideCommits {
    store: Arc<dyn Store>,
    lanes: Mutex<HashMap<u16, Arc<Lane>>>,
}

/// The commits of one lane.
///
/// While a call is under way, further commits wait and go into the next one. After an unknown outcome
/// the same call is sent again under the same number: the store answers a repetition as it answered
/// the first, so each commit is written once. The lane has a session of its own, so that the numbers of
/// its calls grow in the order in which the store gets them.
#[derive(Debug)]
struct Lane {
    store: Arc<dyn Store>,
    session: Uuid,
    /// The space for commits that wait or are under way, in kibibytes.
    space: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// A task sends the commits that wait.
    sending: bool,
    /// The number of the last call.
    number: u64,
}

#[derive(Debug)]
struct Waiting {
    effects: Vec<Effect>,
    answer: oneshot::Sender<Answer>,
    /// Its share of the lane's space, until it is answered.
    space: OwnedSemaphorePermit,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn weight(effects: &[Effect]) -> usize {
    effects.iter().map(Effect::weight).sum()
}

impl OutsideCommits {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            lanes: Mutex::default(),
        }
    }

    /// Commits effects. The call goes on if the future is dropped, once its lane has space for it.
    pub(super) async fn commit(&self, effects: Vec<Effect>) -> Answer {
        let lane = self.store.lane_of(&effects);
        self.commit_in(lane, effects).await
    }

    async fn commit_in(&self, lane: u16, effects: Vec<Effect>) -> Answer {
        let lane = {
            let mut lanes = lock(&self.lanes);
            let new = || Arc::new(Lane::new(Arc::clone(&self.store)));
            Arc::clone(lanes.entry(lane).or_insert_with(new))
        };
        lane.commit(effects).await
    }
}

impl Lane {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            session: Uuid::now_v7(),
            space: Arc::new(Semaphore::new(LANE_KIBIBYTES as usize)),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    async fn commit(self: &Arc<Self>, effects: Vec<Effect>) -> Answer {
        let kibibytes = u32::try_from(weight(&effects) / 1024).unwrap_or(u32::MAX);
        let share = kibibytes.saturating_add(1).min(LANE_KIBIBYTES);
        let space = Arc::clone(&self.space).acquire_many_owned(share).await;
        let rule = "the container accepts no more commits; nothing was written";
        let closed = |_| Error::new(ErrorKind::Closed, "commit", rule);
        let space = space.map_err(closed)?;
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut state = self.state();
            state.waiting.push_back(Waiting {
                effects,
                answer,
                space,
            });
            !std::mem::replace(&mut state.sending, true)
        };
        if starts {
            // It outlives its callers, whose commits may share a call.
            let commits = Arc::clone(self);
            let ended = false;
            tokio::spawn(Sender { commits, ended }.run());
        }
        let rule = "the runtime ended during the commit; it may have been done";
        let unknown = |_| Error::new(ErrorKind::OutcomeUnknown, "commit", rule);
        answered.await.map_err(unknown)?
    }

    /// The commits of the next call. Ends the sending task where none wait.
    fn next_call(&self) -> Vec<Waiting> {
        let mut state = self.state();
        let (mut call, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front() {
            bytes += weight(&next.effects);
            if call.len() == MAX_COMMITS || (bytes > CALL_BYTES && !call.is_empty()) {
                break;
            }
            call.extend(state.waiting.pop_front());
        }
        state.sending = !call.is_empty();
        call
    }

    async fn send(&self, call: Vec<Waiting>) {
        let (mut effects, mut answers, mut spaces) = (Vec::new(), Vec::new(), Vec::new());
        for waiting in call {
            effects.push(waiting.effects);
            answers.push(waiting.answer);
            spaces.push(waiting.space);
        }
        match self.apply(&effects).await {
            Ok(fates) => {
                for (answer, fate) in answers.into_iter().zip(fates) {
                    let _ = answer.send(Ok(fate));
                }
            }
            // Nothing was written. A right that one commit lacks, or keys of a cluster that no one
            // server holds, are no reason to refuse the others.
            Err(error) if is_of_one(&error) && effects.len() > 1 => {
                for (answer, effects) in answers.into_iter().zip(effects) {
                    let fates = self.apply(&[effects]).await;
                    let _ = answer.send(fates.and_then(only));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Sends one call, and repeats it while its outcome is unknown.
    async fn apply(&self, effects: &[Vec<Effect>]) -> Result<Vec<EffectFate>, Error> {
        let number = {
            let mut state = self.state();
            state.number += 1;
            state.number
        };
        let session = Session {
            id: self.session,
            number,
        };
        let (began, mut tries, mut unknown) = (Instant::now(), 0, None);
        loop {
            match self.store.effects().apply(session, effects).await {
                Ok(fates) => return Ok(fates),
                // The first try was certainly not done, so the call was not.
                Err(error) if unknown.is_none() && !error.is_outcome_unknown() => {
                    return Err(error);
                }
                Err(error) => {
                    if unknown.is_none() {
                        tracing::warn!(error = %describe(&error), "the outcome of a commit is unknown; asking until the store answers");
                    }
                    let first = unknown.get_or_insert(error);
                    if began.elapsed() >= REPEATS {
                        return Err(first.clone());
                    }
                }
            }
            tries += 1;
            sleep(back_off(tries)).await;
        }
    }
}

/// Whether the store may have refused a call because of one of its commits.
fn is_of_one(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Refused | ErrorKind::Invalid)
}

fn only(fates: Vec<EffectFate>) -> Answer {
    let missing = || Error::new(ErrorKind::Decode, "commit", "the store gave no answer");
    fates.into_iter().next().ok_or_else(missing)
}

/// The task that sends.
struct Sender {
    commits: Arc<Lane>,
    ended: bool,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let call = self.commits.next_call();
            if call.is_empty() {
                self.ended = true;
                return;
            }
            self.commits.send(call).await;
        }
    }
}

impl Drop for Sender {
    /// After a panic or the end of the runtime, the next commit starts another task.
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.commits.state();
            state.sending = false;
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::BoxFuture;
    use crate::store::EffectStoreOp;
    use crate::store::decorate::{Answer as Reply, Decorated, Decorator, Next, Op};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server that is away: calls of keys that begin with `away` wait. Counts the commits that it has.
    #[derive(Debug)]
    struct Away {
        back: watch::Receiver<bool>,
        commits: AtomicU64,
    }

    impl Decorator for Away {
        fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Reply, Error>> {
            Box::pin(async move {
                if let Op::EffectStore(EffectStoreOp::Apply { commits, .. }) = op {
                    let mut effects = commits.iter().flatten();
                    if effects.any(|effect| effect.subject().starts_with("away")) {
                        let _ = self.back.clone().wait_for(|back| *back).await;
                    }
                    let count = commits.len() as u64;
                    self.commits.fetch_add(count, Ordering::Relaxed);
                }
                to.run(op).await
            })
        }
    }

    fn fixture() -> (watch::Sender<bool>, Arc<Away>, Arc<OutsideCommits>) {
        let (bring_back, back) = watch::channel(false);
        let commits = AtomicU64::new(0);
        let away = Arc::new(Away { back, commits });
        let decorator: Arc<dyn Decorator> = away.clone();
        let store = Arc::new(Decorated::new(decorator, MemoryStore::new().store(None)));
        (bring_back, away, Arc::new(OutsideCommits::new(store)))
    }

    fn set(key: &str, bytes: usize) -> Vec<Effect> {
        vec![Effect::Set {
            key: key.to_owned(),
            value: vec![b'x'; bytes].into(),
            ttl: None,
        }]
    }

    #[tokio::test]
    async fn a_server_that_is_away_holds_up_its_own_lane_only() {
        let (bring_back, _, commits) = fixture();
        let held = {
            let commits = Arc::clone(&commits);
            tokio::spawn(async move { commits.commit_in(1, set("away", 1)).await })
        };
        // Its call is under way before the others.
        while lock(&commits.lanes).is_empty() {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            let done = timeout(PATIENCE, commits.commit_in(2, set("here", 1))).await;
            let done = done.expect("the other lane goes on").unwrap();
            assert_eq!(done, EffectFate::Done(Vec::new()));
        }
        assert!(!held.is_finished());
        bring_back.send_replace(true);
        assert!(held.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn callers_that_find_no_space_and_leave_have_committed_nothing() {
        let (bring_back, away, commits) = fixture();
        // Each but the last fits; the store gets those, although their callers have left.
        let size = LANE_KIBIBYTES as usize * 1024 / 4 - 2 * 1024;
        for n in 0..8 {
            let mut leaving = Box::pin(commits.commit_in(1, set(&format!("away:{n}"), size)));
            assert!(futures_util::poll!(&mut leaving).is_pending());
        }
        bring_back.send_replace(true);
        let last = timeout(PATIENCE, commits.commit_in(1, set("away:last", 1))).await;
        assert!(last.expect("space is free again").is_ok());
        assert_eq!(away.commits.load(Ordering::Relaxed), 4 + 1);
    }
}
