//! `work`: a group's messages, handled by a command of any language.

mod end;
mod exec;
mod metadata;

use std::sync::Arc;

use redstart::{RetryPolicy, SubscribeOptions, extract::Payload};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::args::WorkArgs;
use crate::escape;
use crate::failure::{Failure, INTERRUPTED};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;
use exec::Program;

/// How many characters of the command name the handler.
const NAME: usize = 80;

pub(super) async fn run(
    args: &WorkArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if args.timeout.is_zero() {
        return Err(Failure::usage("--timeout must be longer than 0"));
    }
    let mut signals = Signals::listen()?;
    let container = settings.connect_for(NamespaceAccess::Create).await?;
    let (stop, mut stopped) = mpsc::channel(1);
    let program = Arc::new(Program::new(&args.exec, args.timeout, stop));
    let mut retry = RetryPolicy::default();
    if let Some(most) = args.max_attempts {
        retry = retry.with_max_attempts(most);
    }
    let options = SubscribeOptions::new()
        .with_group(args.of.group.clone())
        .with_concurrency(args.concurrency)
        .with_retry(retry)
        // The program ends its command in time, and kindly.
        .without_handler_timeout()
        .with_handler_name(name_of(&args.exec));
    let handler = move |payload: Payload<Box<RawValue>>, delivery: redstart::Delivery| {
        let program = Arc::clone(&program);
        async move { program.handle(&payload.0, &delivery).await }
    };
    let bus = container.bus();
    let subscribed = bus.subscribe_with(&args.of.topic, options, handler).await;
    let _subscription = subscribed.map_err(Failure::of_settings)?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    terminal.remark(format_args!("working on {topic}/{group}"));
    let failure = tokio::select! {
        () = signals.next() => None,
        cannot_run = stopped.recv() => cannot_run,
    };
    if failure.is_none() {
        terminal.remark("stopping; waiting for the running commands");
    }
    let report = tokio::select! {
        biased;
        () = signals.next() => {
            terminal.remark("stopped at once; the running commands are killed");
            return Err(Failure::Said(INTERRUPTED));
        }
        report = container.shutdown(args.grace) => report,
    };
    if let Some(failure) = failure {
        return Err(Failure::new(failure));
    }
    if !report.is_clean() {
        let text = "commands were still running at the end of the grace; their messages are delivered again";
        return Err(Failure::new(text));
    }
    Ok(())
}

/// The name of a command in dead letters: its first line, cut where it is long.
fn name_of(exec: &str) -> String {
    let first = exec.trim().lines().next().unwrap_or_default();
    escape::excerpt(first, NAME)
}

/// The signals that end a worker.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
