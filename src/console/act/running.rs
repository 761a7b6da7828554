//! Sweeps that run in this process. The journal has every sweep; this table has those that can be
//! stopped here, with their progress.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::domain::{Error, ErrorKind, Group, Topic, describe, panic_text};
use crate::operate::dead_letters::{DeadLetters, PlannedSweep, SweepProgress, SweepReport};
use crate::operate::plan::Confirmed;

/// How many failed sweeps the table remembers, so that their pages say why.
const FAILURES: usize = 100;

/// A sweep that runs in this process.
#[derive(Clone, Debug)]
pub(in crate::console) struct RunningNow {
    pub(in crate::console) progress: SweepProgress,
    /// How many dead letters its preview counted. A resumed sweep has no preview.
    pub(in crate::console) total: Option<u64>,
    task: AbortHandle,
}

#[derive(Default)]
struct Table {
    running: HashMap<Uuid, RunningNow>,
    failed: Vec<(Uuid, String)>,
}

/// The sweeps of this process.
#[derive(Clone, Default)]
pub(in crate::console) struct Sweeps(Arc<Mutex<Table>>);

/// How a sweep began.
#[derive(Debug)]
pub(in crate::console) enum Begun {
    Operation(Uuid),
    /// Nothing matched any more.
    Nothing,
}

impl Sweeps {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a confirmed sweep and returns once the journal has it.
    pub(in crate::console) async fn begin(
        &self,
        dead: DeadLetters,
        plan: Confirmed<PlannedSweep>,
        total: u64,
    ) -> Result<Begun, Error> {
        self.spawn(Some(total), Job::Run(dead, Box::new(plan)))
            .await
    }

    /// Continues a sweep that was stopped or cut off.
    pub(in crate::console) async fn resume(
        &self,
        dead: DeadLetters,
        topic: Topic,
        group: Group,
        operation: Uuid,
    ) -> Result<Begun, Error> {
        let job = Job::Resume(dead, topic, group, operation);
        self.spawn(None, job).await
    }

    async fn spawn(&self, total: Option<u64>, job: Job) -> Result<Begun, Error> {
        let (begun, began) = oneshot::channel();
        let begun = Mutex::new(Some(begun));
        let (hand_over, handed_over) = oneshot::channel::<AbortHandle>();
        let (sweeps, resumed) = (self.clone(), job.operation());
        let task = tokio::spawn(async move {
            // Stop can end the sweep from its first step on, also when its visitor leaves early.
            let Ok(task) = handed_over.await else {
                return;
            };
            let operation = Mutex::new(resumed);
            let report = |progress: SweepProgress| {
                *operation.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(progress.operation);
                let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
                // A resumed sweep has its row since the click. A report after Stop adds none.
                if begun.is_some() && resumed.is_none() {
                    let _ = sweeps.enter(progress, total, task.clone());
                } else {
                    sweeps.update(progress, &task);
                }
                if let Some(begun) = begun {
                    // The visitor may have left.
                    let _ = begun.send(Ok(Begun::Operation(progress.operation)));
                }
            };
            let ended = AssertUnwindSafe(job.run(&report)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|panic| {
                let why = panic_text(panic);
                tracing::error!(error = why, "sweep of dead letters panicked");
                Err(Error::new(ErrorKind::OutcomeUnknown, "sweep", why))
            });
            let operation = *operation.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The visitor hears of a failure before the begin.
            let failure = ended.as_ref().err().filter(|_| begun.is_none());
            sweeps.leave(operation, &task, failure);
            if let Some(begun) = begun {
                let _ = begun.send(ended.map(|_: SweepReport| Begun::Nothing));
            }
        });
        if let Some(operation) = resumed {
            let progress = SweepProgress {
                operation,
                ..SweepProgress::default()
            };
            self.enter(progress, total, task.abort_handle())?;
        }
        // No await lies between the spawn and this: a future that is dropped leaves no task behind
        // that Stop cannot end.
        let _ = hand_over.send(task.abort_handle());
        began.await.unwrap_or_else(|_| {
            let rule = "ended before it began";
            Err(Error::new(ErrorKind::Unavailable, "sweep", rule))
        })
    }

    /// Adds a sweep, unless it runs already.
    fn enter(
        &self,
        progress: SweepProgress,
        total: Option<u64>,
        task: AbortHandle,
    ) -> Result<(), Error> {
        let operation = progress.operation;
        match self.table().running.entry(operation) {
            Entry::Vacant(row) => {
                row.insert(RunningNow {
                    progress,
                    total,
                    task,
                });
                Ok(())
            }
            Entry::Occupied(_) => {
                let error = Error::new(ErrorKind::Refused, "resume sweep", "runs already");
                Err(error.on(operation.to_string()))
            }
        }
    }

    /// Shows how far the sweep of a task is, unless Stop has ended it.
    fn update(&self, progress: SweepProgress, task: &AbortHandle) {
        let mut table = self.table();
        let row = table.running.get_mut(&progress.operation);
        if let Some(row) = row.filter(|row| row.task.id() == task.id()) {
            row.progress = progress;
        }
    }

    fn leave(&self, operation: Option<Uuid>, task: &AbortHandle, failure: Option<&Error>) {
        let Some(operation) = operation else { return };
        let mut table = self.table();
        let row = table.running.get(&operation);
        // After Stop the row may be that of another task, which has resumed the sweep.
        if row.is_none_or(|row| row.task.id() != task.id()) {
            return;
        }
        table.running.remove(&operation);
        table.failed.retain(|(id, _)| *id != operation);
        if let Some(error) = failure {
            if table.failed.len() == FAILURES {
                table.failed.remove(0);
            }
            table.failed.push((operation, describe(error)));
        }
    }

    /// Stops a sweep. The journal keeps it without a result, so that it can be resumed.
    pub(in crate::console) fn stop(&self, operation: Uuid) -> bool {
        let mut table = self.table();
        let Some(running) = table.running.remove(&operation) else {
            return false;
        };
        running.task.abort();
        tracing::info!(%operation, "sweep of dead letters stopped");
        true
    }

    pub(in crate::console) fn get(&self, operation: Uuid) -> Option<RunningNow> {
        self.table().running.get(&operation).cloned()
    }

    /// Why a sweep failed in this process.
    pub(in crate::console) fn failure(&self, operation: Uuid) -> Option<String> {
        let table = self.table();
        let found = table.failed.iter().find(|(id, _)| *id == operation);
        found.map(|(_, why)| why.clone())
    }
}

/// What a task of a sweep does.
enum Job {
    Run(DeadLetters, Box<Confirmed<PlannedSweep>>),
    Resume(DeadLetters, Topic, Group, Uuid),
}

impl Job {
    /// The operation that a resumed sweep has already.
    fn operation(&self) -> Option<Uuid> {
        match self {
            Self::Run(..) => None,
            Self::Resume(_, _, _, operation) => Some(*operation),
        }
    }

    async fn run(
        self,
        report: &(dyn Fn(SweepProgress) + Send + Sync),
    ) -> Result<SweepReport, Error> {
        match self {
            Self::Run(dead, plan) => dead.run(*plan, report).await,
            Self::Resume(dead, topic, group, operation) => {
                dead.resume(&topic, &group, operation, report).await
            }
        }
    }
}
