//! `groups reset`: moves a group in its topic.

use redstart::{Container, views::ResetResult};

use super::dead;
use crate::args::ResetArgs;
use crate::failure::{Failure, written};
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &ResetArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (topics, topic, group) = (container.topics(), &args.topic, &args.group);
    let plan = topics.plan_group_reset(topic, group, args.to).await?;
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
            ended = Err(Failure::new(LIVE));
        }
        return written(told, ended);
    }
    terminal.remark_wrapped(&preview.to_string());
    let confirmed = terminal.confirm(plan, args.yes)?;
    let operator = dead::operator(args.operator.as_deref());
    let reset = topics.run_group_reset(confirmed, &operator).await?;
    let mut told = Ok(());
    if terminal.is_json() {
        told = terminal.json(&ResetResult {
            topic,
            group,
            to: args.to,
            reset,
        });
    }
    if !reset.moved {
        return written(told, Err(Failure::new(LIVE)));
    }
    told?;
    if !terminal.is_json() {
        terminal.line(format_args!("group {group} of {topic}: {reset}"))?;
    }
    Ok(())
}

const LIVE: &str = "the group has live consumers; nothing was changed. Stop them, and try \
                    again 120 seconds later";
