//! Retention: trimming by floor.

use super::backend::RedisBackend;
use super::scripts;
use crate::domain::{Error, Group, Topic};
use crate::store::Retained;

impl RedisBackend {
    pub(super) async fn trim_log(&self, topic: &Topic) -> Result<Retained, Error> {
        let log = self.keys.log(topic);
        self.trim(topic, log, "")
            .await
            .map_err(|e| e.on(topic.as_str()))
    }

    pub(super) async fn trim_redo(&self, topic: &Topic, group: &Group) -> Result<(), Error> {
        let redo = self.keys.redo(topic, group);
        match self.trim(topic, redo, "settled").await {
            Ok(_) => Ok(()),
            Err(e) => Err(e.on(format!("{topic}/{group}"))),
        }
    }

    async fn trim(
        &self,
        topic: &Topic,
        stream: String,
        retention: &'static str,
    ) -> Result<Retained, Error> {
        let call = scripts::retain()
            .key(stream)
            .key(self.keys.meta(topic))
            .arg(retention);
        let (removed, length, backlog, known): (u64, u64, u64, bool) = self
            .pool
            .run("retain", async |connection| call.run(connection).await)
            .await?;
        Ok(Retained {
            removed,
            length,
            backlog,
            known,
        })
    }
}
