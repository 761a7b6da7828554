//! `topics settings` and `topics remove`.

use redstart::topics::{Retention, TopicSettings};
use redstart::views::OfTopic;
use redstart::{Container, Topic};

use super::dead::operator;
use crate::args::{RemoveTopicArgs, TopicSettingsArgs};
use crate::failure::{Failure, written};
use crate::terminal::Terminal;

pub(super) async fn settings(
    args: &TopicSettingsArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (topics, topic) = (container.topics(), &args.topic);
    // Its error names a topic that is spelt much like a missing one.
    topics.groups(topic).await?;
    let found = topics.get(topic).await?;
    let mut after = found.map(|status| status.settings).unwrap_or_default();
    if let Some(retention) = args.retention {
        after = after.with_retention(retention);
    }
    if let Some(limit) = args.backlog_limit {
        after = after.with_backlog_limit(limit);
    }
    if args.retention.is_none() && args.backlog_limit.is_none() {
        return tell(topic, &after, terminal);
    }
    let plan = topics.plan_settings(topic, after).await?;
    let preview = plan.preview();
    if args.dry_run {
        if terminal.is_json() {
            return Ok(terminal.json(&plan)?);
        }
        let text = preview.to_string();
        let mut lines = text.lines();
        return Ok(lines.try_for_each(|line| terminal.hanging("", 0, line))?);
    }
    terminal.remark_wrapped(&preview.to_string());
    if !preview.is_empty() {
        let confirmed = terminal.confirm(plan, args.yes)?;
        let operator = operator(args.operator.as_deref());
        topics.run_settings(confirmed, &operator).await?;
    }
    tell(topic, &after, terminal)
}

pub(super) fn tell(
    topic: &Topic,
    settings: &TopicSettings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if terminal.is_json() {
        let value = settings;
        return Ok(terminal.json(&OfTopic { topic, value })?);
    }
    Ok(terminal.line(format_args!("topic {topic}: {}", in_words(settings)))?)
}

/// The settings, and what each partition has of them.
fn in_words(settings: &TopicSettings) -> String {
    let (retention, limit) = (settings.retention(), limit(settings));
    let partitions = settings.partitions();
    if partitions == 1 {
        return format!("retention {retention}, backlog limit {limit}");
    }
    let share = |count: u64| count.div_ceil(partitions.into());
    let kept = match retention {
        Retention::Count(count) => format!(" ({} in each partition)", share(count)),
        _ => String::new(),
    };
    let later = match settings.backlog_limit() {
        u64::MAX => String::new(),
        limit => format!(" ({} messages for later in each partition)", share(limit)),
    };
    format!("retention {retention}{kept}, backlog limit {limit}{later}, {partitions} partitions")
}

pub(super) async fn remove(
    args: &RemoveTopicArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let topics = container.topics();
    let plan = topics.plan_topic_removal(&args.topic, args.force).await?;
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
            let rule = "the topic is in use; nothing was changed. --force removes it anyway";
            ended = Err(Failure::new(rule));
        }
        return written(told, ended);
    }
    terminal.remark_wrapped(&preview.to_string());
    let confirmed = terminal.confirm(plan, args.yes)?;
    let operator = operator(args.operator.as_deref());
    let removal = topics.run_topic_removal(confirmed, &operator).await?;
    let mut told = Ok(());
    if terminal.is_json() {
        let (topic, value) = (&args.topic, &removal);
        told = terminal.json(&OfTopic { topic, value });
    }
    if !removal.removed {
        let rule = format!(
            "topic {} is in use: it has messages for later, or groups were kept or created meanwhile \
             ({} groups); --force removes it anyway",
            args.topic, removal.groups
        );
        return written(told, Err(Failure::new(rule)));
    }
    told?;
    if !terminal.is_json() {
        terminal.line(format_args!("removed topic {}", args.topic))?;
    }
    Ok(())
}

/// A topic's backlog limit as a table shows it.
pub(super) fn limit(settings: &TopicSettings) -> String {
    match settings.backlog_limit() {
        u64::MAX => "none".to_owned(),
        limit => limit.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_whole_and_the_part() {
        let one = TopicSettings::default().with_backlog_limit(100);
        assert_eq!(in_words(&one), "retention settled, backlog limit 100");
        let many = one.with_partitions(12).with_retention(Retention::Count(8));
        assert_eq!(
            in_words(&many),
            "retention length:8 (1 in each partition), backlog limit 100 (9 messages for later in each \
             partition), 12 partitions"
        );
        let unlimited = TopicSettings::default().with_backlog_limit(u64::MAX);
        assert!(!in_words(&unlimited.with_partitions(2)).contains("each"));
    }
}
