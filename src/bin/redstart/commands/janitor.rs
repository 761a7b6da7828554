//! `janitor`: housekeeping for topics that no consumer of Redstart reads.

use std::time::Duration;

use redstart::container::Signals;
use redstart::topics::{Housekeeping, Topics};
use redstart::{Error, Topic};
use tokio::time::{Instant, sleep_until};

use crate::args::JanitorArgs;
use crate::failure::{Failure, chain};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;

/// Shorter pauses would only load the server.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) async fn run(
    args: &JanitorArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if args.every < SHORTEST {
        return Err(Failure::usage("--every must be at least 100ms"));
    }
    let mut signals = Signals::listen()?;
    let container = settings.connect_for(NamespaceAccess::Change).await?;
    let topics = container.topics();
    // The first round shows whether topics and rights are as they should be.
    let mut failing = false;
    let first = round(args, &topics, terminal, &mut signals).await?;
    if args.once || matches!(first, Round::Stopped) {
        return Ok(());
    }
    terminal.remark("keeping house; stop it with ctrl-c or SIGTERM");
    loop {
        let next = Instant::now() + args.every;
        tokio::select! {
            _ = signals.next() => return Ok(()),
            () = sleep_until(next) => {}
        }
        match round(args, &topics, terminal, &mut signals).await {
            Ok(Round::Stopped) => return Ok(()),
            Ok(Round::Done) => failing = false,
            Err(RoundError::Store(error)) => {
                if !failing {
                    terminal.remark(format_args!("{}; trying again", chain(&error)));
                }
                failing = true;
            }
            Err(RoundError::Output(failure)) => return Err(failure),
        }
    }
}

/// How a round ended.
#[derive(Debug)]
enum Round {
    Done,
    Stopped,
}

#[derive(Debug)]
enum RoundError {
    Store(Error),
    Output(Failure),
}

impl From<Error> for RoundError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<RoundError> for Failure {
    fn from(error: RoundError) -> Self {
        match error {
            RoundError::Store(error) => error.into(),
            RoundError::Output(failure) => failure,
        }
    }
}

/// Keeps house for each topic, also after one that fails, and returns the first error then. A signal
/// ends the round after the topic in hand.
async fn round(
    args: &JanitorArgs,
    topics: &Topics,
    terminal: &mut Terminal<'_>,
    signals: &mut Signals,
) -> Result<Round, RoundError> {
    let names = match args.topics.is_empty() {
        false => args.topics.clone(),
        true => topics.names().await?,
    };
    let mut signalled = std::pin::pin!(async { _ = signals.next().await });
    let (mut stopped, mut failed) = (false, None);
    for name in names {
        match one(topics, &name, signalled.as_mut(), &mut stopped).await {
            Ok(done) if args.once || done.removed + done.promoted + done.pruned > 0 => {
                show(&done, terminal).map_err(RoundError::Output)?;
            }
            Ok(_) => {}
            // One topic must not keep the house of the others from being kept.
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
        if stopped {
            break;
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None if stopped => Ok(Round::Stopped),
        None => Ok(Round::Done),
    }
}

async fn one(
    topics: &Topics,
    name: &Topic,
    mut signalled: std::pin::Pin<&mut impl Future<Output = ()>>,
    stopped: &mut bool,
) -> Result<Housekeeping, Error> {
    let mut keeping = std::pin::pin!(topics.keep_house(name));
    tokio::select! {
        biased;
        done = &mut keeping => return done,
        () = &mut signalled => *stopped = true,
    }
    keeping.await
}

fn show(done: &Housekeeping, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if terminal.is_json() {
        terminal.json(done)?;
    } else {
        let Housekeeping {
            topic,
            removed,
            promoted,
            pruned,
            ..
        } = done;
        let noun = |count: &u64, one, many| if *count == 1 { one } else { many };
        let entries = noun(removed, "entry", "entries");
        let retries = noun(promoted, "retry", "retries");
        let consumers = noun(pruned, "consumer", "consumers");
        terminal.line(format_args!(
            "{topic}: {removed} {entries} removed, {promoted} {retries} promoted, \
             {pruned} {consumers} removed"
        ))?;
    }
    Ok(terminal.flush()?)
}
