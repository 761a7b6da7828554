//! The streams of a reader: the command that reads them, and its reply.

use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;

use crate::adapters::redis::keys::Keys;
use crate::adapters::redis::resp::{Broken, Head, Walk, reply};
use crate::domain::whole_millis;
use crate::store::{Attempts, DeliveryId, Fetched, GroupAt, Kind, Lane, Opening, Source};

/// What a reply says of its own length is believed up to this.
const MAX_RESERVE: usize = 10_000;

/// Streams that one command can read, and who reads them.
#[derive(Debug)]
pub(super) struct Streams {
    group: String,
    consumer: String,
    streams: Vec<Stream>,
}

/// The stream of a source.
#[derive(Debug)]
struct Stream {
    number: u16,
    lane: Lane,
    key: String,
}

/// The key of a source's stream.
pub(super) fn key_of(keys: &Keys, opening: &Opening, source: &Source) -> String {
    let at = GroupAt {
        partition: source.partition.clone(),
        group: opening.group.clone(),
    };
    keys.lane(&at, source.lane)
}

impl Streams {
    pub(super) fn new(opening: &Opening) -> Self {
        Self {
            group: opening.group.to_string(),
            consumer: opening.consumer.to_string(),
            streams: Vec::new(),
        }
    }

    /// Adds the stream of the source with this number.
    pub(super) fn push(&mut self, number: u16, lane: Lane, key: String) {
        self.streams.push(Stream { number, lane, key });
    }

    /// The key that routes the command.
    pub(super) fn first_key(&self) -> &str {
        self.streams.first().map_or("", |stream| &stream.key)
    }

    /// Reads up to `max` entries of each stream. Blocks for `wait`, or not at all with zero.
    pub(super) fn command(&self, max: usize, wait: Duration) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.group)
            .arg(&self.consumer)
            .arg("COUNT")
            .arg(max);
        // A wait of 0 would be for ever.
        let millis = whole_millis(wait);
        if millis > 0 {
            command.arg("BLOCK").arg(millis);
        }
        command.arg("STREAMS");
        for stream in &self.streams {
            command.arg(&stream.key);
        }
        for _ in &self.streams {
            command.arg(">");
        }
        command
    }

    /// The stream with this key.
    fn stream(&self, key: &[u8]) -> Result<&Stream, Broken> {
        let mut streams = self.streams.iter();
        let found = streams.find(|stream| stream.key.as_bytes() == key);
        found.ok_or(Broken::new("a stream that was not asked for"))
    }

    /// Reads the reply: `[[key, [[id, fields], …]], …]`, or nothing.
    pub(super) fn fetched(&self, reply: Bytes) -> Result<Vec<Fetched>, Broken> {
        let mut walk = Walk::new(reply);
        let mut fetched = Vec::new();
        let mut left = walk.array()?;
        while left > 0 {
            // Version 2 of the protocol has an array of pairs here, version 3 a map.
            let (key, values) = match walk.next()? {
                Head::Array(2) => (walk.payload()?, 1),
                Head::Bulk(key) => (key, 2),
                _ => return Err(Broken::new("no stream where one was expected")),
            };
            left = left.saturating_sub(values);
            let Stream { number, lane, .. } = *self.stream(&key)?;
            let entries = walk.array()?;
            fetched.reserve(entries.min(MAX_RESERVE));
            for _ in 0..entries {
                let (id, fields) = reply::walk_entry(&mut walk)?;
                fetched.push(Fetched {
                    source: number,
                    receipt: DeliveryId { lane, id },
                    fields,
                    attempts: Attempts::default(),
                    kind: Kind::Fresh,
                });
            }
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_as_pairs_or_as_a_map() {
        let streams = Streams {
            group: "billing".to_owned(),
            consumer: "one".to_owned(),
            streams: vec![Stream {
                number: 3,
                lane: Lane::Log,
                key: "log".to_owned(),
            }],
        };
        let fetched = |reply: &str| streams.fetched(Bytes::copy_from_slice(reply.as_bytes()));
        let entry = "$3\r\nlog\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$4\r\njson\r\n$2\r\n{}\r\n";
        let pairs = fetched(&format!("*1\r\n*2\r\n{entry}")).unwrap();
        let map = fetched(&format!("%1\r\n{entry}")).unwrap();
        assert_eq!((pairs.len(), map.len()), (1, 1));
        assert_eq!((map[0].source, map[0].receipt), (3, pairs[0].receipt));
        for nothing in ["*-1\r\n", "_\r\n", "*0\r\n", "%0\r\n"] {
            assert!(fetched(nothing).unwrap().is_empty(), "{nothing:?}");
        }
        assert!(fetched("*1\r\n*3\r\n+a\r\n+b\r\n+c\r\n").is_err());
    }
}
