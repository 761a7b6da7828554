//! Listing keys with `SCAN`, and reading the beginnings of values.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{Connection, Primary};
use crate::domain::{Error, ErrorKind};
use crate::store::{KeyCursor, KeyPage, LONGEST_SCAN, Peeked, check_prefix};

const SCAN: &str = "scan";

/// A reply of `SCAN`: the next cursor, and names of keys.
type Scanned = (String, Vec<Vec<u8>>);

/// A place in a listing: the server's position among its primaries, and the cursor that the server
/// gave.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    /// Tells the primaries of a listing from others.
    servers: u64,
    number: usize,
    /// Of 64 bits, in decimal digits.
    cursor: u64,
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let servers = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (number, cursor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self {
            servers,
            number,
            cursor,
        })
    }

    fn cursor(&self) -> KeyCursor {
        KeyCursor::new(format!(
            "{:x}-{}-{}",
            self.servers, self.number, self.cursor
        ))
    }
}

/// A number of some addresses that is the same in every process (FNV-1a).
fn servers(addresses: &[&str]) -> u64 {
    let bytes = addresses.iter().flat_map(|one| one.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A pattern for keys that begin with a text.
fn pattern(start: &str) -> String {
    let mut pattern = String::with_capacity(start.len() + 1);
    for c in start.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}

impl RedisAdapter {
    pub(super) async fn scan_keys(
        &self,
        prefix: &str,
        from: Option<&KeyCursor>,
        count: usize,
    ) -> Result<KeyPage, Error> {
        check_prefix(SCAN, prefix)?;
        let head = self.keys.values();
        let mut primaries = self.net.primaries(SCAN).await?;
        if self.keys.are_together() {
            primaries.retain(|primary| primary.holds(&self.net, &head));
        }
        primaries.sort_by(|one, other| one.address().cmp(other.address()));
        let addresses: Vec<&str> = primaries.iter().map(Primary::address).collect();
        let servers = servers(&addresses);
        let place = match from {
            None => Place {
                servers,
                number: 0,
                cursor: 0,
            },
            Some(cursor) => {
                let invalid = |rule| Error::new(ErrorKind::Invalid, SCAN, rule);
                let place = Place::read(cursor.as_str());
                place
                    .ok_or_else(|| invalid("the cursor is not one of this store"))?
                    .of(servers)
                    .ok_or_else(|| {
                        invalid("the servers have changed since this listing began; begin again")
                    })?
            }
        };
        let Some(primary) = primaries.get(place.number) else {
            return Ok(KeyPage::default());
        };
        let mut command = redis::cmd("SCAN");
        command
            .arg(place.cursor)
            .arg("MATCH")
            .arg(pattern(&format!("{head}{prefix}")))
            .arg("COUNT")
            .arg(count.clamp(1, LONGEST_SCAN))
            .arg("TYPE")
            .arg("string");
        let ask = async |connection: &mut Connection| -> Result<Scanned, RedisError> {
            command.query_async(connection).await
        };
        // A single server is found by a key, so that a failover behind sentinels is followed.
        let (cursor, names) = match self.net.is_clustered() {
            true => primary.run(SCAN, ask).await,
            false => self.net.run(SCAN, &head, ask).await,
        }
        .map_err(|e| e.on(prefix))?;
        let cursor: u64 = cursor.parse().map_err(|_| {
            let rule = "the server answered with a cursor that is not a number";
            Error::new(ErrorKind::Decode, SCAN, rule)
        })?;
        let next = match cursor {
            0 => (place.number + 1 < primaries.len()).then(|| (place.number + 1, 0)),
            cursor => Some((place.number, cursor)),
        };
        let next = next.map(|(number, cursor)| {
            let place = Place {
                servers,
                number,
                cursor,
            };
            place.cursor()
        });
        let mut seen = HashSet::new();
        let keys = names.into_iter().filter_map(|name| {
            let key = String::from_utf8(name)
                .ok()?
                .strip_prefix(&head)?
                .to_owned();
            // Without a namespace the keys of the bus lie beside those of values.
            let is_value = !key.is_empty() && !key.starts_with('{');
            (is_value && seen.insert(key.clone())).then_some(key)
        });
        Ok(KeyPage::new(keys.collect(), next))
    }

    pub(super) async fn peek_values(
        &self,
        keys: &[&str],
        most: usize,
    ) -> Result<Vec<Option<Peeked>>, Error> {
        const PEEK: &str = "peek";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let last = i64::try_from(most).unwrap_or(i64::MAX) - 1;
        let mut commands = Vec::with_capacity(keys.len() * 4);
        for key in keys {
            let name = self.keys.value(PEEK, key)?;
            let mut of = |word: &str, range: &[i64]| {
                let mut command = redis::cmd(word);
                command.arg(&name).arg(range);
                commands.push((name.clone(), command));
            };
            of("EXISTS", &[]);
            match most {
                // A range of nothing does not exist.
                0 => of("GETRANGE", &[1, 0]),
                _ => of("GETRANGE", &[0, last]),
            }
            of("STRLEN", &[]);
            of("PTTL", &[]);
        }
        let replies = self.net.run_each(PEEK, &commands).await.into_iter();
        let replies: Result<Vec<redis::Value>, Error> = replies.collect();
        let replies = replies.map_err(|e| e.on(keys.join(" ")))?;
        let peeked = replies.chunks_exact(4).map(|parts| {
            let [exists, bytes, len, ttl] = parts else {
                return None;
            };
            let redis::Value::BulkString(bytes) = bytes else {
                return None;
            };
            let number = |value: &redis::Value| match value {
                redis::Value::Int(number) => *number,
                _ => 0,
            };
            // The key may have gone between two commands.
            if number(exists) == 0 || number(ttl) == -2 {
                return None;
            }
            let ttl = u64::try_from(number(ttl)).ok().map(Duration::from_millis);
            let len = u64::try_from(number(len)).unwrap_or(0);
            Some(Peeked::new(Bytes::from(bytes.clone()), len, ttl))
        });
        Ok(peeked.collect())
    }
}

impl Place {
    /// This place, if its listing began on these servers.
    fn of(self, servers: u64) -> Option<Self> {
        (self.servers == servers).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_its_own_text_and_no_other() {
        let place = Place {
            servers: servers(&["a:1", "b:1"]),
            number: 2,
            cursor: u64::MAX,
        };
        let text = place.cursor();
        assert_eq!(Place::read(text.as_str()), Some(place.clone()));
        assert_eq!(place.of(servers(&["a:1"])), None);
        for bad in [
            "",
            "0",
            "1-2",
            "x-0-0",
            "1--0",
            "1-0-18446744073709551616",
            "1-0-0-0",
        ] {
            assert_eq!(Place::read(bad), None, "{bad:?}");
        }
        assert_ne!(servers(&["a", "b"]), servers(&["ab"]));
    }

    #[test]
    fn a_pattern_takes_every_character_as_itself() {
        assert_eq!(pattern("shop:a*b?[c]\\"), "shop:a\\*b\\?\\[c\\]\\\\*");
        assert_eq!(pattern(""), "*");
    }
}
