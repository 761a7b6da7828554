//! Sweeps that run in this process. The journal has every sweep; this table has those that can be
//! stopped here, with their progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::domain::{Error, ErrorKind, Group, Topic, describe};
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
    task: Option<AbortHandle>,
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
        if self.table().running.contains_key(&operation) {
            let rule = "runs already";
            return Err(
                Error::new(ErrorKind::Refused, "resume sweep", rule).on(operation.to_string())
            );
        }
        let job = Job::Resume(dead, topic, group, operation);
        self.spawn(None, job).await
    }

    async fn spawn(&self, total: Option<u64>, job: Job) -> Result<Begun, Error> {
        let (begun, began) = oneshot::channel();
        let begun = Mutex::new(Some(begun));
        let sweeps = self.clone();
        let task = tokio::spawn(async move {
            let operation = Mutex::new(None);
            let report = |progress: SweepProgress| {
                *operation.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(progress.operation);
                sweeps.enter(progress, total);
                let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(begun) = begun {
                    // The visitor may have left.
                    let _ = begun.send(Ok(Begun::Operation(progress.operation)));
                }
            };
            let ended = job.run(&report).await;
            let operation = *operation.lock().unwrap_or_else(PoisonError::into_inner);
            sweeps.leave(operation, ended.as_ref().err());
            let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(begun) = begun {
                let _ = begun.send(ended.map(|_: SweepReport| Begun::Nothing));
            }
        });
        let begun = began.await.unwrap_or_else(|_| {
            let rule = "ended before it began";
            Err(Error::new(ErrorKind::Unavailable, "sweep", rule))
        })?;
        if let Begun::Operation(operation) = begun {
            // A sweep that has ended meanwhile is no longer there.
            if let Some(running) = self.table().running.get_mut(&operation) {
                running.task = Some(task.abort_handle());
            }
        }
        Ok(begun)
    }

    fn enter(&self, progress: SweepProgress, total: Option<u64>) {
        let mut table = self.table();
        let running = table.running.entry(progress.operation);
        let running = running.or_insert(RunningNow {
            progress,
            total,
            task: None,
        });
        running.progress = progress;
    }

    fn leave(&self, operation: Option<Uuid>, failure: Option<&Error>) {
        let Some(operation) = operation else { return };
        let mut table = self.table();
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
        if let Some(task) = running.task {
            task.abort();
        }
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
