//! Commits without a delivery: numbered calls, one at a time, each repeated until it is answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
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

type Answer = Result<EffectFate, Error>;

/// The commits of a container.
///
/// While a call is under way, further commits wait and go into the next one. After an unknown outcome
/// the same call is sent again under the same number: the store answers a repetition as it answered
/// the first, so each commit is written once.
#[derive(Debug)]
pub(super) struct OutsideCommits {
    store: Arc<dyn Store>,
    session: Uuid,
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
}

impl OutsideCommits {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            session: Uuid::now_v7(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits effects. The call goes on if the future is dropped.
    pub(super) async fn commit(self: &Arc<Self>, effects: Vec<Effect>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let starts = {
            let mut state = self.state();
            state.waiting.push_back(Waiting { effects, answer });
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
            bytes += next.effects.iter().map(Effect::weight).sum::<usize>();
            if call.len() == MAX_COMMITS || (bytes > CALL_BYTES && !call.is_empty()) {
                break;
            }
            call.extend(state.waiting.pop_front());
        }
        state.sending = !call.is_empty();
        call
    }

    async fn send(&self, call: Vec<Waiting>) {
        let (effects, answers): (Vec<_>, Vec<_>) = call
            .into_iter()
            .map(|waiting| (waiting.effects, waiting.answer))
            .unzip();
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
    commits: Arc<OutsideCommits>,
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
