//! Reading the counts of dead letters.
//!
//! A hash of counts has a field for each cause, type, tenant and hour: a million messages with an error
//! text each make a million fields. It is read in pages, and of each page only the largest counts are
//! kept.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use redis::Value;

use super::counts::Sums;
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::reply;
use crate::domain::{Cause, CountBy, Error, hour_name};
use crate::store::{Counted, GroupAt, LONGEST_COUNTS};

/// About how many fields one page has: the server is busy with them for about a millisecond.
const PAGE: usize = 2_500;
/// For how many causes the first and the last id are read at once.
const IDS: usize = 250;

const OPERATION: &str = "count dead letters";

/// A page of a hash of counts.
struct CountsPage {
    /// Where the next page begins; 0 at the end.
    cursor: u64,
    fields: Vec<(String, String)>,
    /// The sums to subtract from these fields.
    gone: Sums,
}

/// The largest counts so far.
struct Largest {
    by: CountBy,
    counts: BTreeMap<String, u64>,
    others: u64,
}

impl Largest {
    fn new(by: CountBy) -> Self {
        Self {
            by,
            counts: BTreeMap::new(),
            others: 0,
        }
    }

    fn add(&mut self, name: &str, count: u64) {
        // A server that moves its fields meanwhile may send one twice.
        self.counts.insert(name.to_owned(), count);
        if self.counts.len() >= 2 * LONGEST_COUNTS {
            let counted = self.choose();
            self.others = counted.others;
            self.counts = counted.items.into_iter().collect();
        }
    }

    fn choose(&mut self) -> Counted<(String, u64)> {
        let all = mem::take(&mut self.counts).into_iter().collect();
        let mut counted = Counted::largest(all, self.by);
        counted.others += self.others;
        counted
    }
}

impl RedisAdapter {
    /// The causes of a group, the most frequent first.
    pub(super) async fn causes_of(&self, at: &GroupAt) -> Result<Counted<Cause>, Error> {
        let key = self.keys.dead_causes(at);
        // Nearly always the first page has everything.
        let page = self.counts_page(at, &key, 0, None).await?;
        if page.cursor == 0 {
            return Ok(Counted::first(read_causes(page.fields, &page.gone)));
        }
        let (mut largest, mut cursor) = (Largest::new(CountBy::Type), 0);
        loop {
            let page = self.counts_page(at, &key, cursor, Some("n *")).await?;
            for (name, count) in &page.fields {
                if let Some(cause) = name.strip_prefix("n ")
                    && let Some(count) = left(count, page.gone.causes.get(cause))
                {
                    largest.add(cause, count);
                }
            }
            cursor = page.cursor;
            if cursor == 0 {
                break;
            }
        }
        let counted = largest.choose();
        Ok(Counted {
            items: self.with_ids(at, &key, &counted.items).await?,
            others: counted.others,
        })
    }

    /// Reads the first and the last id of these causes.
    async fn with_ids(
        &self,
        at: &GroupAt,
        key: &str,
        counted: &[(String, u64)],
    ) -> Result<Vec<Cause>, Error> {
        let mut fields = Vec::with_capacity(3 * counted.len());
        for some in counted.chunks(IDS) {
            let names = some
                .iter()
                .flat_map(|(cause, _)| [format!("f {cause}"), format!("l {cause}")]);
            let names: Vec<String> = names.collect();
            let ids: Vec<Option<String>> = self
                .net
                .run(OPERATION, key, async |connection| {
                    let mut command = redis::cmd("HMGET");
                    command.arg(key).arg(&names).query_async(connection).await
                })
                .await
                .map_err(|e| e.on(at.to_string()))?;
            let ids = names.into_iter().zip(ids);
            fields.extend(ids.filter_map(|(name, id)| Some((name, id?))));
            let counts = some.iter();
            fields.extend(counts.map(|(cause, count)| (format!("n {cause}"), count.to_string())));
        }
        Ok(read_causes(fields, &Sums::default()))
    }

    /// The counts of a group by type, tenant or hour.
    pub(super) async fn counts_of(
        &self,
        at: &GroupAt,
        by: CountBy,
    ) -> Result<Counted<(String, u64)>, Error> {
        let key = self.keys.dead_counts(at);
        let pattern = format!("{}*", prefix(by));
        let (mut largest, mut cursor) = (Largest::new(by), 0);
        loop {
            let page = self.counts_page(at, &key, cursor, Some(&pattern)).await?;
            for (name, count) in read_counts(&page.fields, &page.gone, by) {
                largest.add(&name, count);
            }
            cursor = page.cursor;
            if cursor == 0 {
                return Ok(largest.choose());
            }
        }
    }

    /// A page of a hash of counts, and the sums to subtract from it. The two commands reach the server in
    /// one write, and what it has read at once it does at once, so that each page is right by itself.
    async fn counts_page(
        &self,
        at: &GroupAt,
        key: &str,
        cursor: u64,
        pattern: Option<&str>,
    ) -> Result<CountsPage, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSCAN").arg(key).arg(cursor);
        if let Some(pattern) = pattern {
            pipeline.arg("MATCH").arg(pattern);
        }
        pipeline.arg("COUNT").arg(PAGE);
        pipeline.hgetall(self.keys.dead_uncounted(at));
        let ((cursor, fields), uncounted): (_, Uncounted) = self
            .net
            .run(OPERATION, key, async |connection| {
                pipeline.query_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        Ok(CountsPage {
            cursor,
            fields,
            gone: sum(uncounted),
        })
    }

    /// Some hours only: the hash of counts has a field for each tenant, too.
    pub(super) async fn counts_of_hours(
        &self,
        at: &GroupAt,
        hours: &[u64],
    ) -> Result<Vec<u64>, Error> {
        let key = self.keys.dead_counts(at);
        let names: Vec<String> = hours.iter().map(|hour| format!("hour:{hour}")).collect();
        let mut replies: Vec<Value> = self
            .net
            .run("count dead letters", &key, async |connection| {
                let mut pipeline = redis::pipe();
                for name in &names {
                    pipeline.hget(&key, name);
                }
                pipeline.hgetall(self.keys.dead_uncounted(at));
                pipeline.query_async(connection).await
            })
            .await
            .map_err(|e| e.on(at.to_string()))?;
        let read = |e| error::sent("count dead letters", e).on(at.to_string());
        let uncounted = replies.pop().unwrap_or(Value::Nil);
        let gone = sum(reply::typed(uncounted).map_err(read)?);
        let counts = names.iter().zip(replies).map(|(name, reply)| {
            let count: Option<String> = reply::typed(reply).map_err(read)?;
            let count = count.and_then(|count| left(&count, gone.counts.get(name)));
            Ok(count.unwrap_or(0))
        });
        counts.collect()
    }
}

type Uncounted = Vec<(Vec<u8>, Vec<u8>)>;

fn sum(uncounted: Uncounted) -> Sums {
    let mut sums = Sums::default();
    for (_, some) in uncounted {
        sums.add(&Sums::decode(&some));
    }
    sums
}

/// The causes of `n …`, `f …` and `l …`, see lua/lib/dead_counts.lua.
fn read_causes(fields: Vec<(String, String)>, gone: &Sums) -> Vec<Cause> {
    let found: HashMap<&str, &str> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let read = |name: &str| {
        let cause = name.strip_prefix("n ")?;
        let (reason, fingerprint) = cause.split_once(' ')?;
        let id = |which: &str| reply::parse_id(found.get(&*format!("{which} {cause}"))?.as_bytes());
        Some(Cause {
            reason: reason.parse().ok()?,
            fingerprint: fingerprint.to_owned(),
            count: left(found.get(name)?, gone.causes.get(cause))?,
            first: id("f").unwrap_or_default(),
            last: id("l").unwrap_or_default(),
        })
    };
    let mut causes: Vec<Cause> = found.keys().filter_map(|name| read(name)).collect();
    causes.sort_by(|a, b| {
        let names = |cause: &Cause| (cause.reason.as_str(), cause.fingerprint.clone());
        b.count.cmp(&a.count).then_with(|| names(a).cmp(&names(b)))
    });
    causes
}

/// The rest of a count after a change; `None` for a rest of zero.
fn left(count: &str, gone: Option<&i64>) -> Option<u64> {
    let left = count.parse::<i64>().ok()? - gone.unwrap_or(&0);
    u64::try_from(left).ok().filter(|left| *left > 0)
}

fn prefix(by: CountBy) -> &'static str {
    match by {
        CountBy::Type => "type:",
        CountBy::Tenant => "tenant:",
        CountBy::Hour => "hour:",
    }
}

fn read_counts(fields: &[(String, String)], gone: &Sums, by: CountBy) -> Vec<(String, u64)> {
    let counts = fields.iter().filter_map(|(name, count)| {
        let count = left(count, gone.counts.get(name))?;
        let name = name.strip_prefix(prefix(by))?;
        let name = match by {
            CountBy::Hour => hour_name(name.parse().ok()?),
            CountBy::Type | CountBy::Tenant => name.to_owned(),
        };
        Some((name, count))
    });
    counts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    #[test]
    fn causes_are_read_and_what_is_none_is_left_out() {
        let fields = pairs(&[
            ("n exhausted no user #", "5"),
            ("f exhausted no user #", "1-0"),
            ("l exhausted no user #", "9-2"),
            ("n rejected ", "7"),
            ("n crashed gone", "1"),
            ("n foreign x", "1"),
            ("n", "1"),
        ]);
        let mut gone = Sums::default();
        for (cause, number) in [("exhausted no user #", 2), ("crashed gone", 1)] {
            gone.causes.insert(cause.to_owned(), number);
        }
        let causes = read_causes(fields, &gone);
        let seen: Vec<_> = causes
            .iter()
            .map(|one| (one.reason, one.fingerprint.as_str(), one.count))
            .collect();
        assert_eq!(
            seen,
            [
                (Reason::Rejected, "", 7),
                (Reason::Exhausted, "no user #", 3)
            ]
        );
        assert_eq!(causes[1].last.to_string(), "9-2");
    }

    #[test]
    fn counts_are_told_apart_by_what_they_count() {
        let fields = pairs(&[
            ("type:a", "1"),
            ("type:b", "4"),
            ("tenant:", "2"),
            ("hour:0", "3"),
        ]);
        let mut gone = Sums::default();
        gone.counts.insert("type:b".to_owned(), 4);
        let read = |by| read_counts(&fields, &gone, by);
        assert_eq!(read(CountBy::Type), [("a".to_owned(), 1)]);
        assert_eq!(read(CountBy::Tenant), [(String::new(), 2)]);
        assert_eq!(read(CountBy::Hour), [("1970-01-01T00Z".to_owned(), 3)]);
    }

    #[test]
    fn of_many_counts_the_largest_are_kept_and_the_others_counted() {
        let mut largest = Largest::new(CountBy::Tenant);
        let all = 3 * LONGEST_COUNTS as u64;
        for number in 0..all {
            largest.add(&format!("tenant {number}"), number + 1);
            assert!(largest.counts.len() < 2 * LONGEST_COUNTS);
        }
        largest.add("", 7);
        let counted = largest.choose();
        assert_eq!(counted.items.len(), LONGEST_COUNTS);
        assert_eq!(counted.others, all + 1 - LONGEST_COUNTS as u64);
        let smallest = counted.items.iter().map(|(_, count)| *count).min();
        assert_eq!(smallest, Some(2 * LONGEST_COUNTS as u64 + 1));
        assert!(counted.items.is_sorted());
    }
}
