//! Retention: trimming by floor.

use super::adapter::RedisAdapter;
use super::resp::reply;
use super::scripts;
use crate::domain::{Error, Group, Topic};
use crate::store::Trimmed;

impl RedisAdapter {
    pub(super) async fn trim_log(&self, topic: &Topic) -> Result<Trimmed, Error> {
        let log = self.keys.log(topic);
        self.trim(topic, log, "")
            .await
            .map_err(|e| e.on(topic.as_str()))
    }

    pub(super) async fn trim_redelivery_stream(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<(), Error> {
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
    ) -> Result<Trimmed, Error> {
        let call = scripts::trim()
            .key(stream)
            .key(self.keys.meta(topic))
            .arg(retention);
        let (removed, length, backlog, known): (u64, u64, u64, bool) =
            self.net.call("trim", &call, reply::typed).await?;
        Ok(Trimmed {
            removed,
            length,
            backlog,
            known,
        })
    }
}
