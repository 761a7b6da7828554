//! `groups remove`: a group, its retries and its dead letters.

use redstart::{Container, views::OfTopic};

use crate::args::RemoveArgs;
use crate::failure::{FAILED, Failure};
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
        if terminal.is_json() {
            terminal.json(&plan)?;
        } else {
            for line in preview.to_string().lines() {
                terminal.hanging("", 0, line)?;
            }
        }
    }
    if preview.refused {
        let text = "error: the group is in use; nothing was changed. --force removes it anyway";
        terminal.remark_wrapped(text);
        return Err(Failure::Said(FAILED));
    }
    if args.dry_run {
        return Ok(());
    }
    terminal.remark_wrapped(&preview.to_string());
    let confirmed = terminal.confirm(plan, args.yes)?;
    let removal = topics.run_group_removal(confirmed).await?;
    if terminal.is_json() {
        let (topic, value) = (&args.topic, &removal);
        terminal.json(&OfTopic { topic, value })?;
    }
    if !removal.removed {
        terminal.remark_wrapped(&format!("error: {removal}"));
        return Err(Failure::Said(FAILED));
    }
    if !terminal.is_json() {
        terminal.line(format_args!(
            "removed group {} of {}",
            args.group, args.topic
        ))?;
    }
    Ok(())
}
