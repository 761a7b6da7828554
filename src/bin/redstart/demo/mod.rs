//! `demo`: messages, workers, a kill, and an account that adds up.

mod account;
mod crew;
mod ground;
mod plan;
mod play;
mod process;
mod report;
mod server;
mod server_process;
mod show;
mod thread;
mod worker;

use clap::Args as ClapArgs;

use crate::console::Console;
use crate::failure::{Failure, INTERRUPTED};
use crate::settings::Settings;

pub(crate) use worker::{WorkerArgs, work};

/// Kill a worker in the middle of its work and see that no message is lost.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Kill a worker in the middle of its work and see that no message is lost.

Publishes messages before any worker exists, starts worker processes that share them as one
group, kills one of them, and accounts for every message: handled, or a dead letter.

Plays on the server of REDSTART_REDIS_URL, in a fresh namespace of its own, which stays there; or,
where that is not set, on a private redis-server that is started for the demo, with an append-only
file in a temporary folder, and is gone at the end; or, where there is no redis-server on the PATH,
on the memory adapter, with threads for workers.",
    after_help = "\
Examples:
  redstart demo
  redstart demo --messages 50000 --workers 5
  redstart demo --keep               then look around with topics, groups, tail

With --json the last line of the output is one object with published, handled, dead, duplicates,
lost, retries, workers_killed, seconds, messages_per_second, adapter, namespace, adds_up.

Exit codes: 0 the account adds up, 1 it does not or the demo failed, 2 wrong usage,
130 interrupted."
)]
pub(crate) struct DemoArgs {
    /// How many messages are published
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=500_000))]
    messages: u64,
    /// How many workers are started, before one of them is killed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=64))]
    workers: u64,
    /// Leave the private server running, and say how to look at it and how to stop it
    #[arg(long)]
    keep: bool,
}

/// Plays the demo. Whatever happens, the processes that it started are ended.
pub(crate) async fn run(
    args: &DemoArgs,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let result = tokio::select! {
        biased;
        () = interrupted() => {
            console.remark("interrupted; the processes of the demo are ended");
            return Err(Failure::Said(INTERRUPTED));
        }
        result = play::play(args, settings, console) => result,
    };
    match result {
        // Nobody reads on, and so nobody knows whether the account adds up.
        Err(Failure::ReaderGone) => Err(Failure::Said(crate::failure::FAILED)),
        result => result,
    }
}

/// Completes when the process is asked to end.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let one = |kind| async move {
            match signal(kind) {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = one(SignalKind::interrupt()) => {}
            () = one(SignalKind::terminate()) => {}
            () = one(SignalKind::hangup()) => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Keeps ctrl-c from reaching a child process: the demo ends its children itself, in an order
/// in which none of them sees another one vanish.
fn own_group(command: &mut std::process::Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}
