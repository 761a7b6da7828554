//! `groups remove`: a group and all that is its own.

use redstart::{
    Container, Topic,
    topics::{GroupStatus, Topics},
};
use serde::Serialize;

use crate::args::RemoveArgs;
use crate::console::Console;
use crate::failure::{FAILED, Failure};

pub(super) async fn run(
    args: &RemoveArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let (admin, topic) = (container.topics(), &args.topic);
    let status = super::group_of(topic, &args.group, container).await?;
    let consumers = admin.consumers(topic, &args.group).await?;
    let living = consumers
        .iter()
        .filter(|one| one.idle_for < Topics::LIVE_WITHIN);
    let plan = Shown::of(false, topic, &status, living.count() as u64);
    let refused = plan.is_needed() && !args.force;
    if args.dry_run || refused {
        if console.is_json() {
            console.json(&plan)?;
        } else {
            console.hanging("", 0, &plan.sentence("would remove"))?;
        }
    }
    if refused {
        console
            .sentence("error: not removed: the group is needed; --force removes it all the same");
        return Err(Failure::Said(FAILED));
    }
    if args.dry_run {
        return Ok(());
    }
    console.sentence(&plan.sentence("removes"));
    if plan.living > 0 {
        console.sentence(
            "Its consumers that live will make it anew and begin at the oldest entry of the topic.",
        );
    }
    if !args.yes {
        console.confirm(args.group.as_str())?;
    }
    let removal = admin.remove_group(topic, &args.group, args.force).await?;
    let shown = Shown::of(
        removal.removed,
        topic,
        &removal.status,
        removal.live_consumers,
    );
    if console.is_json() {
        console.json(&shown)?;
    }
    if !removal.removed {
        console.sentence(&format!(
            "error: not removed: meanwhile it is needed: {}",
            shown.counts()
        ));
        return Err(Failure::Said(FAILED));
    }
    if !console.is_json() {
        console.line(format_args!("removed group {} of {topic}", args.group))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Shown<'a> {
    removed: bool,
    topic: &'a str,
    group: &'a str,
    lag: u64,
    in_flight: u64,
    scheduled: u64,
    dead: u64,
    consumers: u64,
    living: u64,
}

impl<'a> Shown<'a> {
    fn of(removed: bool, topic: &'a Topic, status: &'a GroupStatus, living: u64) -> Self {
        Self {
            removed,
            topic: topic.as_str(),
            group: status.group.as_str(),
            lag: status.lag,
            in_flight: status.in_flight,
            scheduled: status.scheduled,
            dead: status.dead,
            consumers: status.consumers,
            living,
        }
    }

    fn is_needed(&self) -> bool {
        self.lag + self.in_flight + self.scheduled + self.dead + self.living > 0
    }

    fn counts(&self) -> String {
        let Self {
            lag,
            in_flight,
            scheduled,
            dead,
            living,
            ..
        } = self;
        format!(
            "{lag} not delivered, {in_flight} in flight, {scheduled} scheduled, {dead} dead letters, \
             {living} living consumers"
        )
    }

    fn sentence(&self, verb: &str) -> String {
        let (group, topic) = (self.group, self.topic);
        format!(
            "This {verb} group {group} of {topic} for good: {}.",
            self.counts()
        )
    }
}
