//! Topics and groups: creating, listing, removing and trimming.

mod settings;

use std::time::Duration;

pub(super) use settings::read_settings;

use super::adapter::RedisAdapter;
use super::resp::reply;
use super::scripts;
use crate::domain::{BoxFuture, ConsumerName, EntryId, Error, Topic, TopicSettings, whole_millis};
use crate::store::{
    GroupAt, GroupRemoval, GroupReset, GroupStatus, Member, Partition, ResetTo, StartFrom,
    TopicRemoval, Topics, Trimmed, wrong_kind,
};

impl RedisAdapter {
    async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        let registry = self.keys.topics();
        let mut names: Vec<String> = self
            .net
            .run("list topics", &registry, async |connection| {
                redis::cmd("SMEMBERS")
                    .arg(&registry)
                    .query_async(connection)
                    .await
            })
            .await?;
        names.sort();
        // What is no topic's name was put there by someone else.
        Ok(names
            .iter()
            .filter_map(|name| Topic::new(name).ok())
            .collect())
    }

    /// Creates a group of a kind, or finds it.
    pub(super) async fn ensure_group(
        &self,
        at: &GroupAt,
        start: StartFrom,
        owned: bool,
    ) -> Result<(), Error> {
        let start = match start {
            StartFrom::Beginning => "beginning",
            StartFrom::End => "next",
        };
        let call = scripts::group_create()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.meta(&at.partition))
            .arg(at.group.as_str())
            .arg(start)
            .arg(if owned { "owned" } else { "shared" });
        let operation = "create group";
        let made = self.net.call(operation, &call, reply::typed::<i64>).await;
        match made.map_err(|e| e.on(at.to_string()))? {
            -1 => Err(wrong_kind(operation, !owned).on(at.to_string())),
            _ => Ok(()),
        }
    }

    async fn take_away_group(
        &self,
        at: &GroupAt,
        quiet: Duration,
        force: bool,
    ) -> Result<Option<GroupRemoval>, Error> {
        let call = scripts::group_remove()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.retry(at))
            .key(self.keys.retry_body(at))
            .key(self.keys.dead(at))
            .key(self.keys.dead_body(at))
            .key(self.keys.dead_counts(at))
            .key(self.keys.dead_causes(at))
            .key(self.keys.dead_restored(at))
            .key(self.keys.dead_uncounted(at))
            .key(self.keys.journal(at))
            .key(self.keys.dead_notes(at))
            .key(self.keys.meta(&at.partition))
            .key(self.keys.members(at))
            .key(self.keys.owners(at))
            .key(self.keys.tokens(at))
            .key(self.keys.cursor(at))
            .key(self.keys.unsettled_notes(at))
            .arg(at.group.as_str())
            .arg(whole_millis(quiet))
            .arg(if force { "force" } else { "" });
        let found: Vec<u64> = self
            .net
            .call("remove group", &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))?;
        let [
            removed,
            lag,
            in_flight,
            scheduled,
            dead,
            consumers,
            living,
            owned,
        ] = found[..]
        else {
            return Ok(None);
        };
        Ok(Some(GroupRemoval {
            removed: removed == 1,
            status: GroupStatus {
                group: at.group.clone(),
                lag,
                in_flight,
                scheduled,
                dead,
                // The members of an owned group are no consumers of its streams.
                consumers: if owned == 1 { living } else { consumers },
                owned: owned == 1,
            },
            live_consumers: living,
        }))
    }

    async fn move_cursor(
        &self,
        at: &GroupAt,
        to: ResetTo,
        quiet: Duration,
    ) -> Result<Option<GroupReset>, Error> {
        let operation = "reset group";
        let (first, before) = match to {
            // No id comes before the smallest one.
            ResetTo::Entry(id) => match id.before() {
                Some(before) => (id.to_string(), before.to_string()),
                None => (ResetTo::Beginning.to_string(), String::new()),
            },
            word => (word.to_string(), String::new()),
        };
        let call = scripts::group_reset()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.cursor(at))
            .key(self.keys.members(at))
            .arg(at.group.as_str())
            .arg(first)
            .arg(before)
            .arg(whole_millis(quiet));
        let read = |reply| match reply {
            redis::Value::Array(parts) if parts.is_empty() => Ok(None),
            reply => reply::typed::<(u64, u64, String, String)>(reply).map(Some),
        };
        let found = self.net.call(operation, &call, read).await;
        let Some((moved, live_consumers, before, after)) =
            found.map_err(|e| e.on(at.to_string()))?
        else {
            return Ok(None);
        };
        let cursor = |id: &str| id.parse::<EntryId>().map_err(|e| e.on(at.to_string()));
        Ok(Some(GroupReset {
            moved: moved == 1,
            live_consumers,
            before: cursor(&before)?,
            after: cursor(&after)?,
        }))
    }

    async fn trim_log(&self, at: &Partition) -> Result<Trimmed, Error> {
        let groups = self.keys.groups(at);
        let trimmed = self
            .trim_stream(at, self.keys.log(at), ("", &groups), Duration::ZERO)
            .await;
        trimmed.map_err(|e| e.on(at.to_string()))
    }

    async fn trim_log_in_turn(&self, at: &Partition, pause: Duration) -> Result<u64, Error> {
        let trimmed = self.trim_stream(at, self.keys.log(at), ("", ""), pause);
        match trimmed.await {
            Ok(trimmed) => Ok(trimmed.removed),
            Err(e) => Err(e.on(at.to_string())),
        }
    }

    async fn trim_redelivery_stream(&self, at: &GroupAt) -> Result<(), Error> {
        let stream = self.keys.redelivery(at);
        let settled = ("settled", "");
        match self
            .trim_stream(&at.partition, stream, settled, Duration::ZERO)
            .await
        {
            Ok(_) => Ok(()),
            Err(e) => Err(e.on(at.to_string())),
        }
    }

    async fn trim_stream(
        &self,
        at: &Partition,
        stream: String,
        (retention, groups): (&'static str, &str),
        pause: Duration,
    ) -> Result<Trimmed, Error> {
        let call = scripts::trim()
            .key(stream)
            .key(self.keys.meta(at))
            .arg(retention)
            .arg(groups)
            .arg(whole_millis(pause));
        let (removed, length, backlog, known): (u64, u64, u64, bool) =
            self.net.call("trim", &call, reply::typed).await?;
        Ok(Trimmed {
            removed,
            length,
            backlog,
            known,
        })
    }

    async fn drop_consumers(
        &self,
        at: &GroupAt,
        idle: Duration,
        only: Option<&ConsumerName>,
    ) -> Result<u64, Error> {
        let call = scripts::prune_consumers()
            .key(self.keys.log(&at.partition))
            .key(self.keys.redelivery(at))
            .key(self.keys.meta(&at.partition))
            .arg(at.group.as_str())
            .arg(whole_millis(idle))
            .arg(only.map_or("", ConsumerName::as_str))
            .arg(self.keys.sessions(&at.partition));
        self.net
            .call("prune consumers", &call, reply::typed)
            .await
            .map_err(|e| e.on(at.to_string()))
    }
}

impl Topics for RedisAdapter {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>> {
        Box::pin(self.create_topic(topic, settings))
    }

    fn change_settings<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<Option<TopicSettings>, Error>> {
        Box::pin(self.replace_settings(topic, settings))
    }

    fn remove_topic<'a>(
        &'a self,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Option<TopicRemoval>, Error>> {
        Box::pin(self.take_away_topic(topic))
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<u16>, Error>> {
        Box::pin(self.count_partitions(topic))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>> {
        Box::pin(self.list_topics())
    }

    fn create_group<'a>(
        &'a self,
        at: &'a GroupAt,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.ensure_group(at, start, false))
    }

    fn set_lease<'a>(
        &'a self,
        by: &'a Member,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Duration, Error>> {
        Box::pin(async move {
            let call = scripts::group_lease()
                .key(self.keys.log(&by.at.partition))
                .key(self.keys.redelivery(&by.at))
                .key(self.keys.meta(&by.at.partition))
                .arg(by.group().as_str())
                .arg(by.consumer.as_str())
                .arg(whole_millis(lease));
            let millis = self
                .net
                .call("set lease", &call, |reply| reply::count(&reply));
            let millis = millis.await.map_err(|e| e.on(by.to_string()))?;
            Ok(Duration::from_millis(millis))
        })
    }

    fn remove_group<'a>(
        &'a self,
        at: &'a GroupAt,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>> {
        Box::pin(self.take_away_group(at, quiet, force))
    }

    fn reset_group<'a>(
        &'a self,
        at: &'a GroupAt,
        to: ResetTo,
        quiet: Duration,
    ) -> BoxFuture<'a, Result<Option<GroupReset>, Error>> {
        Box::pin(self.move_cursor(at, to, quiet))
    }

    fn trim<'a>(&'a self, at: &'a Partition) -> BoxFuture<'a, Result<Trimmed, Error>> {
        Box::pin(self.trim_log(at))
    }

    fn trim_in_turn<'a>(
        &'a self,
        at: &'a Partition,
        pause: Duration,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.trim_log_in_turn(at, pause))
    }

    fn trim_redelivery<'a>(&'a self, at: &'a GroupAt) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.trim_redelivery_stream(at))
    }

    fn prune_consumers<'a>(
        &'a self,
        at: &'a GroupAt,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.drop_consumers(at, idle, only))
    }
}
