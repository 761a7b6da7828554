//! Bringing due retries back.

use std::time::Duration;

use super::adapter::RedisAdapter;
use super::resp::reply;
use super::scripts;
use crate::domain::{Error, Group, Topic};
use crate::store::{MAX_BATCH, Promoted};

impl RedisAdapter {
    pub(super) async fn promote_due(
        &self,
        topic: &Topic,
        group: &Group,
        max: usize,
    ) -> Result<Promoted, Error> {
        let call = scripts::promote()
            .key(self.keys.retry(topic, group))
            .key(self.keys.retry_body(topic, group))
            .key(self.keys.redo(topic, group))
            .arg(max.min(MAX_BATCH));
        let (moved, next): (u64, i64) = self
            .net
            .call("promote", &call, reply::typed)
            .await
            .map_err(|e| e.on(format!("{topic}/{group}")))?;
        let next = u64::try_from(next).ok().map(Duration::from_millis);
        Ok(Promoted { moved, next })
    }
}
