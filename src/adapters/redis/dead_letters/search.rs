//! Searching dead letters: heads read in place, the next page on its way while one is searched.

use std::collections::BTreeSet;

use bytes::Bytes;
use redis::RedisError;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::{Broken, Walk, pack, reply};
use crate::domain::{DeadLetterFilter, EntryId, Error};
use crate::store::{Found, GroupAt, IdRange, LONGEST_SEARCH};
use crate::wire::dead_letter::{read_head, unreadable};

/// How many heads are read at once: the server is busy with them for some 0.1 milliseconds.
const PAGE: usize = 250;

const OPERATION: &str = "search dead letters";

/// A page of heads, in the bytes of the reply.
pub(super) type Page = Vec<(EntryId, Bytes)>;

impl RedisAdapter {
    pub(super) async fn search_dead(
        &self,
        at: &GroupAt,
        mut range: IdRange,
        filter: &DeadLetterFilter,
        max: usize,
    ) -> Result<Found, Error> {
        let stream = self.keys.dead(at);
        // Where everything matches, no more is read than is asked for.
        let size = if filter.matches_all() {
            max.clamp(1, PAGE)
        } else {
            PAGE
        };
        let read = async |range: IdRange| {
            let page = self.read_page(&stream, range, size).await;
            page.map_err(|e| e.on(at.to_string()))
        };
        let mut found = Found::default();
        let mut page = read(range).await?;
        loop {
            let rest = page.last().and_then(|(last, _)| rest_of(range, *last));
            let complete = page.len() < size || rest.is_none();
            range = rest.unwrap_or(range);
            let enough = found.looked as usize + page.len() >= LONGEST_SEARCH
                || (filter.matches_all() && found.items.len() + page.len() >= max);
            // Asked for before the page is searched, so that server and client work at once.
            let following = async {
                if complete || enough {
                    return Ok(Page::new());
                }
                read(range).await
            };
            let searching = async { search(filter, max, &page, &mut found) };
            let (following, ()) = tokio::join!(following, searching);
            let full = found.items.len() >= max;
            if full || complete || enough {
                // What was read ahead and not looked at is there for the next call.
                found.more = !complete || (full && found.last != page.last().map(|(id, _)| *id));
                return Ok(found);
            }
            page = following?;
        }
    }

    async fn read_page(&self, stream: &str, range: IdRange, size: usize) -> Result<Page, Error> {
        let from = range
            .after
            .map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let until = range
            .until
            .map_or_else(|| "+".to_owned(), |id| id.to_string());
        if range.newest_first {
            return self
                .read_range(b"XREVRANGE", stream, [&until, &from], size)
                .await;
        }
        self.read_range(b"XRANGE", stream, [&from, &until], size)
            .await
    }

    async fn read_range(
        &self,
        command: &[u8],
        stream: &str,
        [begin, end]: [&str; 2],
        size: usize,
    ) -> Result<Page, Error> {
        let count = size.to_string();
        let mut packed = Vec::with_capacity(128);
        let parts: [&[u8]; 6] = [
            command,
            stream.as_bytes(),
            begin.as_bytes(),
            end.as_bytes(),
            b"COUNT",
            count.as_bytes(),
        ];
        pack(&mut packed, &parts);
        let replies = self.net.look(OPERATION, stream, packed, 1).await?;
        let reply = replies.into_iter().next();
        let reply = reply.unwrap_or_else(|| Err(reply::unexpected("no reply")));
        reply
            .and_then(|reply| parse(reply).map_err(RedisError::from))
            .map_err(|e| error::sent(OPERATION, e))
    }
}

impl RedisAdapter {
    /// The heads of those that are there. Ids that lie close together are read as one range, which
    /// takes a server a tenth of the time; what that has not come to, one by one.
    pub(super) async fn read_each(
        &self,
        stream: &str,
        mut wanted: BTreeSet<EntryId>,
    ) -> Result<Page, Error> {
        let mut page = Page::new();
        // Mostly they are all there is between the first and the last.
        for most in [wanted.len(), 2 * wanted.len()] {
            let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
                break;
            };
            let (from, until) = (first.to_string(), last.to_string());
            let read = self
                .read_range(b"XRANGE", stream, [&from, &until], most)
                .await?;
            let come_to = read.last().map(|(id, _)| *id);
            let come_to = come_to.filter(|_| read.len() >= most);
            page.extend(read.into_iter().filter(|(id, _)| wanted.contains(id)));
            match come_to {
                Some(come_to) => wanted.retain(|id| *id > come_to),
                None => wanted.clear(),
            }
        }
        page.extend(self.read_singly(stream, wanted.iter()).await?);
        Ok(page)
    }

    async fn read_singly(
        &self,
        stream: &str,
        ids: impl Iterator<Item = &EntryId>,
    ) -> Result<Page, Error> {
        let (mut packed, mut count) = (Vec::new(), 0);
        for id in ids {
            let id = id.to_string();
            let parts: [&[u8]; 4] = [b"XRANGE", stream.as_bytes(), id.as_bytes(), id.as_bytes()];
            pack(&mut packed, &parts);
            count += 1;
        }
        let mut page = Page::with_capacity(count);
        if count == 0 {
            return Ok(page);
        }
        for reply in self.net.look(OPERATION, stream, packed, count).await? {
            let found = reply.and_then(|reply| parse(reply).map_err(RedisError::from));
            page.extend(found.map_err(|e| error::sent(OPERATION, e))?);
        }
        Ok(page)
    }
}

/// What a read has left of the range of one partition once it has come to an id.
fn rest_of(range: IdRange, last: EntryId) -> Option<IdRange> {
    Some(match range.newest_first {
        true => IdRange {
            until: Some(last.before()?),
            ..range
        },
        false => IdRange {
            after: Some(last),
            ..range
        },
    })
}

/// `[[id, [name, head]], …]`.
fn parse(reply: Bytes) -> Result<Page, Broken> {
    let mut walk = Walk::new(reply);
    let entries = walk.array()?;
    let mut page = Vec::with_capacity(entries.min(PAGE));
    for _ in 0..entries {
        walk.array()?;
        let id = reply::parse_id(&walk.payload()?).ok_or(Broken::new("no entry id"))?;
        let mut head = Bytes::new();
        for _ in 0..walk.array()? / 2 {
            let (name, value) = (walk.payload()?, walk.payload()?);
            if &name[..] == b"head" {
                head = value;
            }
        }
        page.push((id, head));
    }
    Ok(page)
}

fn search(filter: &DeadLetterFilter, max: usize, page: &Page, found: &mut Found) {
    for (id, bytes) in page {
        if found.items.len() >= max {
            break;
        }
        let read = read_head(bytes).and_then(|head| {
            let matches = filter.matches_view(*id, head.view());
            matches.then(|| head.into_head()).transpose()
        });
        let letter = read.unwrap_or_else(|flaw| {
            let head = unreadable(&flaw);
            filter.matches(*id, &head).then_some(head)
        });
        found.looked += 1;
        found.last = Some(*id);
        found.items.extend(letter.map(|letter| (*id, letter)));
    }
}
