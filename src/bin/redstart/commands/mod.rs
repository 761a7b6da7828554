//! The commands. Each takes its arguments and a terminal.

#[cfg(feature = "console")]
mod console;
mod context;
mod dead;
mod doctor;
mod envelope_line;
mod group_remove;
mod group_reset;
mod groups;
mod health;
mod input;
mod janitor;
mod kv;
mod metrics;
mod migrate;
mod pages;
mod print;
mod publish;
mod retries;
mod schedules;
mod settings;
mod tail;
mod top;
mod topic_change;
mod topics;
mod work;

use crate::args::{Args, Command};
use crate::demo;
use crate::failure::Failure;
use crate::settings::NamespaceAccess;
use crate::terminal::Terminal;

/// Runs one command.
pub(crate) async fn run(args: &Args, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let settings = &args.settings;
    if args.command.only_shows() && terminal.out_is_closed() {
        let rule = "the standard output is closed, so that nothing can be shown";
        return Err(Failure::new(rule));
    }
    if let Some(name) = settings.context_name()
        && terminal.err_is_terminal()
        && args.command.access() != NamespaceAccess::Read
    {
        terminal.remark(format_args!("context {name}"));
    }
    let connect = || settings.connect_for(args.command.access());
    match &args.command {
        Command::Demo(args) => demo::run(args, settings, terminal).await,
        Command::DemoWorker(args) => demo::work(args, settings).await,
        Command::Publish(args) => {
            let input = std::io::BufReader::new(std::io::stdin());
            publish::run(args, settings, terminal, input).await
        }
        Command::Work(args) => work::run(args, settings, terminal).await,
        Command::Tail(args) => tail::run(args, settings, &connect().await?, terminal).await,
        Command::Topics(args) => topics::run(args, &connect().await?, terminal).await,
        Command::Groups(args) => groups::run(args, &connect().await?, terminal).await,
        Command::Top(args) => top::run(args, settings, terminal).await,
        Command::Retries(args) => retries::run(args, &connect().await?, terminal).await,
        Command::Schedules(args) => schedules::run(args, &connect().await?, terminal).await,
        Command::Dead(args) => {
            dead::check_usage(&args.action)?;
            dead::run(args, &connect().await?, terminal).await
        }
        Command::Kv(args) => kv::run(args, &connect().await?, terminal).await,
        Command::Migrate(args) => migrate::run(args, settings, terminal).await,
        Command::Health(_) => health::run(settings, terminal).await,
        Command::Doctor(args) => doctor::run(args, settings, terminal).await,
        Command::Janitor(args) => janitor::run(args, settings, terminal).await,
        Command::Metrics(args) => metrics::run(args, settings, terminal).await,
        #[cfg(feature = "console")]
        Command::Console(args) => console::run(args, settings, terminal).await,
        Command::Print(args) => print::run(args, settings, terminal),
        Command::Context(args) => context::run(args, terminal),
        Command::Settings(_) => settings::run(settings, terminal),
        Command::Completions(args) => pages::completions(args, terminal),
        Command::Man(args) => pages::man(args, terminal),
    }
}
