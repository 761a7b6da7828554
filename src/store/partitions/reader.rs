//! A reader over the partitions of its sources.

use std::time::Duration;

use super::{Partitioned, delivery_in};
use crate::domain::{BoxFuture, Error};
use crate::store::source::{Opening, Source};
use crate::store::{Fetched, Opened, Reader};

impl Partitioned {
    pub(super) async fn open_spread(&self, opening: &Opening) -> Result<Opened, Error> {
        let mut sources = Vec::new();
        let mut origins = Vec::new();
        for (source, asked) in (0..).zip(&opening.sources) {
            for partition in self.partitions_meant(&asked.partition).await? {
                origins.push(Origin {
                    source,
                    partition: partition.number(),
                });
                let lane = asked.lane;
                sources.push(Source { partition, lane });
            }
        }
        if sources.len() == opening.sources.len() && origins.iter().all(|one| one.partition == 0) {
            return self.inner.open(opening).await;
        }
        let spread = Opening {
            sources,
            ..opening.clone()
        };
        let (inner, interrupt) = self.inner.open(&spread).await?;
        let per_source = (origins.len() / opening.sources.len().max(1)).max(1);
        let reader = SpreadReader {
            inner,
            origins,
            per_source,
        };
        Ok((Box::new(reader), interrupt))
    }
}

/// The source of the caller, and the partition, that a source of the adapter stands for.
#[derive(Clone, Copy, Debug)]
struct Origin {
    source: u16,
    partition: u16,
}

#[derive(Debug)]
struct SpreadReader {
    inner: Box<dyn Reader>,
    origins: Vec<Origin>,
    /// How many sources of the adapter stand for one of the caller, about.
    per_source: usize,
}

impl Reader for SpreadReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(async move {
            // The adapter takes up to its limit of each source, and at least one.
            let max = (max / self.per_source).max(1);
            let mut fetched = self.inner.fetch(max, wait).await?;
            for one in &mut fetched {
                if let Some(origin) = self.origins.get(usize::from(one.source)) {
                    one.source = origin.source;
                    one.receipt = delivery_in(one.receipt, origin.partition);
                }
            }
            Ok(fetched)
        })
    }

    fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
        self.inner.ready()
    }
}
