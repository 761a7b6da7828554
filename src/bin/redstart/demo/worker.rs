//! A worker process of the demo: one consumer, until its standard input is closed.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use clap::Args as ClapArgs;
use redstart::{
    Delivery, Group, Handler, MessageBusExt as _, Outcome, RetryPolicy, SubscribeOptions, Topic,
};
use tokio::sync::oneshot;

use super::plan::{CONCURRENCY, Fails, LEASE, MAX_ATTEMPTS, Message};
use super::report::Report;
use crate::failure::Failure;
use crate::settings::Settings;

/// How long a worker may take to finish what it has begun.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What a worker is told. Server and namespace come by the environment.
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

pub(crate) async fn work(args: &WorkerArgs, settings: &Settings) -> Result<(), Failure> {
    let container = settings.connect().await?;
    let options = SubscribeOptions::new()
        .with_group(args.group.clone())
        .with_concurrency(CONCURRENCY as usize)
        .with_lease(LEASE)
        .with_retry(
            RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1))
                .with_max_attempts(MAX_ATTEMPTS),
        )
        .with_handler_name("demo");
    let handler = Demo {
        work: Duration::from_micros(args.work),
    };
    let _subscription = container
        .bus()
        .subscribe_with(&args.topic, options, handler)
        .await?;
    tell(Report::Ready);
    input_closed().await;
    let report = container.shutdown(SHUTDOWN).await;
    if report.is_clean() {
        Ok(())
    } else {
        Err(Failure::new("handlers were still running at the deadline"))
    }
}

/// Writes one line, at once. Who cannot report must not acknowledge either: a worker whose
/// parent has gone ends here, and its deliveries go to others.
fn tell(report: Report) {
    let mut out = io::stdout().lock();
    let told = writeln!(out, "{report}").and_then(|()| out.flush());
    if told.is_err() {
        std::process::exit(i32::from(crate::failure::FAILED));
    }
}

/// Completes when the parent closes the pipe, or is gone.
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
}

impl Handler for Demo {
    type Message = Message;
    type Outcome = Outcome;

    async fn handle(&self, message: Message, delivery: Delivery) -> Outcome {
        let (id, attempt) = (delivery.envelope().id(), delivery.attempt());
        tell(Report::Begun(id));
        tokio::time::sleep(self.work).await;
        let fails = match message.fails {
            Fails::Never => false,
            Fails::Once => attempt == 1,
            Fails::Always => true,
        };
        if !fails {
            tell(Report::Handled(id));
            return Outcome::Ack;
        }
        tell(if attempt < MAX_ATTEMPTS {
            Report::Retry(id)
        } else {
            Report::Dead(id)
        });
        Outcome::retry(format!("message {} fails at attempt {attempt}", message.n))
    }
}
