//! A worker of the demo: one consumer, until it is dismissed.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use clap::Args as ClapArgs;
use redstart::{
    Container, Delivery, Group, Handler, Outcome, RetryPolicy, SubscribeOptions, Topic,
};
use tokio::sync::{mpsc, oneshot};

use super::orders::Event;
use super::plan::{CONCURRENCY, Fails, LEASE, MAX_ATTEMPTS, Message};
use super::report::Report;
use crate::failure::Failure;
use crate::settings::{NamespaceAccess, Settings};

/// How long a worker may take to finish its running handlers.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// The arguments of a worker process. Server and namespace come from the environment.
#[derive(Debug, ClapArgs)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    topic: Topic,
    #[arg(long)]
    group: Group,
    /// How long the handling of a message takes, in microseconds.
    #[arg(long)]
    work: u64,
}

/// Runs a worker process until its standard input closes.
pub(crate) async fn work(args: &WorkerArgs, settings: &Settings) -> Result<(), Failure> {
    let container = settings.connect_for(NamespaceAccess::Create).await?;
    let task = Task {
        topic: args.topic.clone(),
        group: args.group.clone(),
        work: Duration::from_micros(args.work),
    };
    serve(&container, task, Voice::Output, input_closed()).await
}

/// The task of a worker.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) topic: Topic,
    pub(super) group: Group,
    /// How long the handling of a message takes.
    pub(super) work: Duration,
}

/// Handles messages until `dismissed` completes, then finishes the running handlers.
pub(super) async fn serve(
    container: &Container,
    task: Task,
    voice: Voice,
    dismissed: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let options = SubscribeOptions::new()
        .with_group(task.group)
        .with_concurrency(CONCURRENCY as usize)
        .with_lease(LEASE)
        .with_retry(
            RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1))
                .with_max_attempts(MAX_ATTEMPTS),
        )
        .with_handler_name("demo");
    let handler = Demo {
        work: task.work,
        voice: voice.clone(),
    };
    let _subscription = container
        .bus()
        .subscribe_with(&task.topic, options, handler)
        .await?;
    voice.tell(Report::Ready).await;
    dismissed.await;
    let report = container.shutdown(SHUTDOWN).await;
    if report.is_clean() {
        Ok(())
    } else {
        Err(Failure::new(
            "handlers were still running at the end of the grace period",
        ))
    }
}

/// How a worker reports.
#[derive(Clone, Debug)]
pub(super) enum Voice {
    /// A line on the standard output.
    Output,
    /// A channel, for the worker with this index.
    Channel(usize, mpsc::Sender<(usize, Event)>),
}

impl Voice {
    /// Reports at once. A worker that cannot report must not acknowledge either: without its
    /// parent it ends here, and its deliveries go to others.
    async fn tell(&self, report: Report) {
        match self {
            Self::Output => {
                let mut out = io::stdout().lock();
                let written = writeln!(out, "{report}").and_then(|()| out.flush());
                if written.is_err() {
                    std::process::exit(i32::from(crate::failure::FAILED));
                }
            }
            Self::Channel(at, sender) => {
                if sender.send((*at, Event::Reported(report))).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Completes when the parent closes the pipe or dies.
async fn input_closed() {
    let (sender, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut byte = [0];
        while matches!(input.read(&mut byte), Ok(1..)) {}
        let _ = sender.send(());
    });
    let _ = closed.await;
}

#[derive(Debug)]
struct Demo {
    work: Duration,
    voice: Voice,
}

impl Handler for Demo {
    type Message = Message;
    type Output = Outcome;

    async fn handle(&self, message: Message, delivery: Delivery) -> Outcome {
        let (id, attempt) = (delivery.envelope().id(), delivery.attempt());
        self.voice.tell(Report::Begun(id)).await;
        tokio::time::sleep(self.work).await;
        let fails = match message.fails {
            Fails::Never => false,
            Fails::Once => attempt == 1,
            Fails::Always => true,
        };
        if !fails {
            self.voice.tell(Report::Handled(id)).await;
            return Outcome::Ack;
        }
        let report = if attempt < MAX_ATTEMPTS {
            Report::Retry(id)
        } else {
            Report::Dead(id)
        };
        self.voice.tell(report).await;
        Outcome::retry(format!("message {} fails at attempt {attempt}", message.n))
    }
}
