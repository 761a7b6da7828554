//! Operators' notes: one hash, a field for each name.

use std::collections::BTreeMap;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::domain::Error;
use crate::store::GroupAt;

impl RedisAdapter {
    pub(super) async fn read_notes(&self, at: &GroupAt) -> Result<Vec<(String, String)>, Error> {
        let key = self.keys.dead_notes(at);
        let notes: BTreeMap<String, String> = self
            .net
            .run("read notes", &key, async |connection| {
                redis::cmd("HGETALL")
                    .arg(&key)
                    .query_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        Ok(notes.into_iter().collect())
    }

    pub(super) async fn write_note(
        &self,
        at: &GroupAt,
        name: &str,
        note: Option<&str>,
    ) -> Result<(), Error> {
        if note.is_some() && !self.has_group(at).await? {
            return Ok(());
        }
        let key = self.keys.dead_notes(at);
        let mut command = redis::cmd(if note.is_some() { "HSET" } else { "HDEL" });
        command.arg(&key).arg(name);
        if let Some(note) = note {
            command.arg(note);
        }
        self.net
            .run("write a note", &key, async |connection| {
                command.exec_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }
}
