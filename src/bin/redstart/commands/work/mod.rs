//! `work`: a group's messages, handled by a command or an endpoint of any language.

mod answer;
mod end;
mod exec;
mod http;
mod metadata;
mod told;

use std::sync::Arc;
use std::time::Duration;

use redstart::container::Signals;
use redstart::{Delivery, Outcome, RetryPolicy, SubscribeOptions, extract::Payload};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::args::WorkArgs;
use crate::escape;
use crate::failure::{Failure, INTERRUPTED};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;
use exec::Program;
use http::Endpoint;
use told::Told;

/// How many characters of the command name the handler.
const NAME: usize = 80;
/// How long the worker waits at its end for a reader of its standard error.
const FLUSHING: Duration = Duration::from_millis(500);

pub(super) async fn run(
    args: &WorkArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if args.timeout.is_zero() {
        return Err(Failure::usage("--timeout must be longer than 0"));
    }
    let mut signals = Signals::listen()?;
    let (stop, mut stopped) = mpsc::channel(1);
    let told = Told::start().map_err(|error| Failure::new(format!("no thread: {error}")))?;
    let worker = Arc::new(Worker::of(args, stop, told.clone())?);
    let container = settings.connect_for(NamespaceAccess::Create).await?;
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
        .with_handler_name(name_of(args));
    let handler = move |payload: Payload<Box<RawValue>>, delivery: Delivery| {
        let worker = Arc::clone(&worker);
        async move { worker.handle(&payload.0, &delivery).await }
    };
    let bus = container.bus();
    let subscribed = bus.subscribe_with(&args.of.topic, options, handler).await;
    let _subscription = subscribed.map_err(Failure::of_settings)?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    terminal.remark(format_args!("working on {topic}/{group}"));
    // From here on the worker has leases, and writes past its terminal.
    let failure = tokio::select! {
        _ = signals.next() => None,
        Some(cannot_run) = stopped.recv() => Some(cannot_run),
    };
    if failure.is_none() {
        told.say("stopping; waiting for what runs");
    }
    let report = tokio::select! {
        biased;
        _ = signals.next() => {
            told.say("stopped at once; what runs is cut off");
            told.flush(FLUSHING).await;
            return Err(Failure::Said(INTERRUPTED));
        }
        report = container.shutdown(args.grace) => report,
    };
    told.flush(FLUSHING).await;
    if let Some(failure) = failure {
        return Err(Failure::new(failure));
    }
    if !report.is_clean() {
        let text = "handlers were still running at the end of the grace; their messages are delivered again";
        return Err(Failure::new(text));
    }
    Ok(())
}

/// The name of the handler in dead letters: the command's first line or the URL, cut where it is
/// long. A query may hold a key of the endpoint.
fn name_of(args: &WorkArgs) -> String {
    let url = args.http.as_deref().and_then(|url| url.split('?').next());
    let by = args.exec.as_deref().or(url);
    let first = by.and_then(|by| by.trim().lines().next());
    escape::excerpt(first.unwrap_or_default(), NAME)
}

/// What handles the messages.
#[derive(Debug)]
enum Worker {
    Exec(Program),
    Http(Endpoint),
}

impl Worker {
    fn of(args: &WorkArgs, stop: mpsc::Sender<String>, told: Told) -> Result<Self, Failure> {
        if let Some(command) = &args.exec {
            return Ok(Self::Exec(Program::new(command, args.timeout, stop, told)));
        }
        let url = args.http.as_deref().unwrap_or_default();
        let endpoint = Endpoint::new(url, args.timeout).map_err(Failure::usage)?;
        Ok(Self::Http(endpoint))
    }

    async fn handle(&self, payload: &RawValue, delivery: &Delivery) -> Outcome {
        match self {
            Self::Exec(program) => program.handle(payload, delivery).await,
            Self::Http(endpoint) => endpoint.handle(payload, delivery).await,
        }
    }
}
