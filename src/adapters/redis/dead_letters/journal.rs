//! The journal: what operators did to a group's dead letters.
//!
//! One hash: `<operation>` its order, `<operation>:taken`, `<operation>:cursor` and
//! `<operation>:result`. Operations have ids of version 7, so that their order is that of time.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::inspect::is_absent;
use crate::adapters::redis::resp::reply::{self, Flat};
use crate::domain::Error;
use crate::store::{GroupAt, JournalRow, LONGEST_JOURNAL};

impl RedisAdapter {
    pub(super) async fn write_beginning(
        &self,
        at: &GroupAt,
        operation: Uuid,
        order: &str,
    ) -> Result<(), Error> {
        if !self.has_group(at).await? {
            return Ok(());
        }
        let rows = self.read_journal(at).await?;
        let over = (rows.len() + 1).saturating_sub(LONGEST_JOURNAL);
        let mut pipeline = redis::pipe();
        let key = self.keys.journal(at);
        pipeline
            .cmd("HSET")
            .arg(&key)
            .arg(operation.to_string())
            .arg(order)
            .ignore();
        for row in &rows[..over] {
            let id = row.id;
            pipeline.cmd("HDEL").arg(&key).arg(id.to_string());
            for part in ["taken", "cursor", "result"] {
                pipeline.arg(format!("{id}:{part}"));
            }
            pipeline.ignore();
        }
        self.net
            .run("begin operation", &key, async |connection| {
                pipeline.exec_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))
    }

    pub(super) async fn write_end(
        &self,
        at: &GroupAt,
        operation: Uuid,
        result: &str,
    ) -> Result<(), Error> {
        let key = self.keys.journal(at);
        self.net
            .run("end operation", &key, async |connection| {
                let mut known = redis::cmd("HEXISTS");
                let known = known.arg(&key).arg(operation.to_string());
                // The group may be gone by now, or the journal full of newer operations.
                if !known.query_async::<bool>(&mut *connection).await? {
                    return Ok(());
                }
                redis::cmd("HSET")
                    .arg(&key)
                    .arg(format!("{operation}:result"))
                    .arg(result)
                    .exec_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        self.count_taken(at, 1).await;
        Ok(())
    }

    /// Whether a group exists. The keys of its journal and its notes must not be made for another: nothing
    /// would ever remove them.
    pub(super) async fn has_group(&self, at: &GroupAt) -> Result<bool, Error> {
        let log = self.keys.log(&at.partition);
        let rows = self.net.run("find group", &log, async |connection| {
            let mut command = redis::cmd("XINFO");
            match command
                .arg("GROUPS")
                .arg(&log)
                .query_async(connection)
                .await
            {
                Err(error) if is_absent(&error) => Ok(Vec::new()),
                groups => reply::array(groups?),
            }
        });
        let rows = rows.await.map_err(|e| e.on(at.to_string()))?;
        let name = |row| Flat::new(row).ok()?.text("name");
        let mut names = rows.into_iter().filter_map(name);
        Ok(names.any(|name| name == at.group.as_str()))
    }

    pub(super) async fn read_journal(&self, at: &GroupAt) -> Result<Vec<JournalRow>, Error> {
        let key = self.keys.journal(at);
        let fields: Vec<(String, String)> = self
            .net
            .run("read the journal", &key, async |connection| {
                redis::cmd("HGETALL")
                    .arg(&key)
                    .query_async(connection)
                    .await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        Ok(rows(fields))
    }
}

fn rows(fields: Vec<(String, String)>) -> Vec<JournalRow> {
    let mut rows: BTreeMap<Uuid, JournalRow> = BTreeMap::new();
    for (name, value) in &fields {
        if let Ok(id) = Uuid::try_parse(name) {
            let row = JournalRow {
                id,
                order: value.clone(),
                taken: 0,
                cursor: None,
                result: None,
            };
            rows.insert(id, row);
        }
    }
    for (name, value) in fields {
        let Some((id, part)) = name.split_once(':') else {
            continue;
        };
        let Some(row) = Uuid::try_parse(id).ok().and_then(|id| rows.get_mut(&id)) else {
            continue;
        };
        match part {
            "taken" => row.taken = value.parse().unwrap_or(0),
            "cursor" => row.cursor = reply::parse_id(value.as_bytes()),
            "result" => row.result = Some(value),
            _ => {}
        }
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_and_ordered_by_time() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let fields = [
            (format!("{two}:taken"), "7"),
            (two.to_string(), "second"),
            (format!("{two}:cursor"), "5-1"),
            (one.to_string(), "first"),
            (format!("{one}:result"), "done"),
            (format!("{}:taken", Uuid::from_u128(3)), "1"),
        ];
        let fields = fields.map(|(name, value)| (name, value.to_owned()));
        let rows = rows(fields.to_vec());
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].order.as_str(), rows[0].taken), ("first", 0));
        assert_eq!(rows[0].result.as_deref(), Some("done"));
        assert_eq!(rows[1].cursor, reply::parse_id(b"5-1"));
        assert_eq!((rows[1].taken, rows[1].result.as_ref()), (7, None));
    }
}
