//! `groups remove`: a group, its retries and its dead letters.

use redstart::{Container, views::OfTopic};

use crate::args::RemoveArgs;
use crate::failure::{FAILED, Failure, written};
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &RemoveArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let topics = container.topics();
    let plan = topics
        .plan_group_removal(&args.topic, &args.group, args.force)
        .await?;
    let preview = plan.preview();
    if args.dry_run || preview.refused {
        let told = if terminal.is_json() {
            terminal.json(&plan)
        } else {
            let text = preview.to_string();
            text.lines()
                .try_for_each(|line| terminal.hanging("", 0, line))
        };
        let mut ended = Ok(());
        if preview.refused {
            let text = "error: the group is in use; nothing was changed. --force removes it anyway";
            terminal.remark_wrapped(text);
            ended = Err(Failure::Said(FAILED));
        }
        return written(told, ended);
    }
    terminal.remark_wrapped(&preview.to_string());
    let confirmed = terminal.confirm(plan, args.yes)?;
    let removal = topics.run_group_removal(confirmed).await?;
    let mut told = Ok(());
    if terminal.is_json() {
        let (topic, value) = (&args.topic, &removal);
        told = terminal.json(&OfTopic { topic, value });
    }
    if !removal.removed {
        terminal.remark_wrapped(&format!("error: {removal}"));
        return written(told, Err(Failure::Said(FAILED)));
    }
    told?;
    if !terminal.is_json() {
        terminal.line(format_args!(
            "removed group {} of {}",
            args.group, args.topic
        ))?;
    }
    Ok(())
}
