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

use redstart::{Container, Group, Topic, topics::GroupStatus};

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
        Command::Dead(args) => {
            dead::check_usage(&args.action)?;
            dead::run(args, &connect().await?, console).await
        }
        Command::Kv(args) => kv::run(args, &connect().await?, console).await,
        Command::Migrate(args) => migrate::run(args, settings, console).await,
        Command::Health(_) => health::run(settings, console).await,
        Command::Doctor(args) => doctor::run(args, settings, console).await,
        Command::Completions(args) => pages::completions(args, console),
        Command::Man(args) => pages::man(args, console),
    }
}

fn no_topic(topic: &Topic) -> Failure {
    Failure::new(format!("there is no topic {:?}", topic.as_str()))
}

/// Where a topic's groups stand; fails where there is no such topic.
async fn groups_of(topic: &Topic, container: &Container) -> Result<Vec<GroupStatus>, Failure> {
    let status = container.topics().get(topic).await?;
    Ok(status.ok_or_else(|| no_topic(topic))?.groups)
}

/// Where a group stands. Fails where there is none: for a name that was misspelt nothing waits
/// either, and nothing is dead.
async fn group_of(
    topic: &Topic,
    group: &Group,
    container: &Container,
) -> Result<GroupStatus, Failure> {
    let groups = groups_of(topic, container).await?;
    let found = groups.into_iter().find(|status| status.group == *group);
    found.ok_or_else(|| {
        let (topic, group) = (topic.as_str(), group.as_str());
        Failure::new(format!("topic {topic:?} has no group {group:?}"))
    })
}
