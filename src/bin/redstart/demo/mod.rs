//! `demo`: messages, workers, a kill, and an account that adds up.

mod account;
mod cluster;
mod crew;
mod ground;
#[cfg(feature = "console")]
mod mixture;
mod orders;
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

use crate::failure::{Failure, INTERRUPTED};
use crate::settings::Settings;
use crate::terminal::Terminal;

pub(crate) use worker::{WorkerArgs, work};

/// Kill a worker during its work and see that no message is lost.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Kill a worker during its work and see that no message is lost.

Publishes messages before any worker exists, starts worker processes as one group, kills one of
them, and accounts for every message: handled, or a dead letter.

Runs on the server of REDSTART_REDIS_URL, in a new namespace, which stays there. Without that
variable it starts a private redis-server, with an append-only file in a temporary folder, and
removes it at the end. Without redis-server on the PATH it runs on the memory adapter, with threads
for workers.

With --cluster it starts a private Redis Cluster instead, of three primaries with a replica each,
publishes at level replicated, and also kills the primary that has the messages.",
    after_help = "\
Examples:
  redstart demo
  redstart demo --messages 50000 --workers 5
  redstart demo --cluster            on a private Redis Cluster, of which one primary dies
  redstart demo --keep               then look around with topics, groups, tail
  redstart demo --console            then look around in a browser

With --json: one object with published, handled, dead, duplicates,
lost, retries, workersKilled, primariesKilled, seconds, messagesPerSecond, adapter, namespace,
addsUp.

Exit codes: 0 the account adds up, 1 it does not or the demo failed, 2 wrong usage,
130 interrupted."
)]
pub(crate) struct DemoArgs {
    /// How many messages to publish
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=500_000), allow_negative_numbers = true)]
    messages: u64,
    /// How many workers to start
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=64), allow_negative_numbers = true)]
    workers: u64,
    /// Run on a private Redis Cluster, and kill one of its primaries as well
    #[arg(long)]
    cluster: bool,
    /// Leave the private server running, and show how to inspect and stop it
    #[arg(long)]
    keep: bool,
    /// Afterwards serve the console on this address [default: 127.0.0.1:8087]
    #[cfg(feature = "console")]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8087", conflicts_with = "keep")]
    console: Option<std::net::SocketAddr>,
}

/// Runs the demo. However it ends, it ends the processes that it started.
pub(crate) async fn run(
    args: &DemoArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let result = tokio::select! {
        biased;
        () = interrupted() => {
            terminal.remark("interrupted; the demo ended its processes");
            return Err(Failure::Said(INTERRUPTED));
        }
        result = play::play(args, settings, terminal) => result,
    };
    match result {
        // A reader that left cannot learn whether the account adds up.
        Err(Failure::ReaderGone) => Err(Failure::Said(crate::failure::FAILED)),
        result => result,
    }
}

/// Completes at the first signal to end.
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

/// Keeps ctrl-c from reaching a child process: the demo ends its children itself, in an order in
/// which no child sees another one disappear.
fn own_group(command: &mut std::process::Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}
