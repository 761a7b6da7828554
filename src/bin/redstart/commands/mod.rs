//! The commands. Each is a function from its arguments and a console.

mod dead;
mod doctor;
mod groups;
mod health;
mod input;
mod kv;
mod line;
mod migrate;
mod pages;
mod publish;
mod remove;
mod retries;
mod tail;
mod topics;

use crate::args::{Args, Command};
use crate::console::Console;
use crate::demo;
use crate::failure::Failure;

/// Runs the command that was asked for.
pub(crate) async fn run(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let settings = &args.settings;
    let connect = || settings.connect_to(args.command.touch());
    match &args.command {
        Command::Demo(args) => demo::run(args, settings, console).await,
        Command::DemoWorker(args) => demo::work(args, settings).await,
        Command::Publish(args) => {
            let input = std::io::BufReader::new(std::io::stdin());
            publish::run(args, settings, console, input).await
        }
        Command::Tail(args) => tail::run(args, &connect().await?, console).await,
        Command::Topics(_) => topics::run(&connect().await?, console).await,
        Command::Groups(args) => groups::run(args, &connect().await?, console).await,
        Command::Retries(args) => retries::run(args, &connect().await?, console).await,
        Command::Dead(args) => dead::run(args, &connect().await?, console).await,
        Command::Kv(args) => kv::run(args, &connect().await?, console).await,
        Command::Migrate(args) => migrate::run(args, settings, console).await,
        Command::Health(_) => health::run(settings, console).await,
        Command::Doctor(args) => doctor::run(args, settings, console).await,
        Command::Completions(args) => pages::completions(args, console),
        Command::Man(args) => pages::man(args, console),
    }
}
