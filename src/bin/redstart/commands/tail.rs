//! `tail`: the entries of a topic, without consuming them.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::value::RawValue;

use redstart::{
    Container, Envelope, Error, ErrorKind,
    envelope::{Codec, EntryId},
    topics::{Entry, Topics},
    views::{ListedEntry, envelope_json},
};

use crate::args::{Format, TailArgs};
use crate::failure::{FAILED, Failure, chain};
use crate::settings::Settings;
use crate::terminal::Terminal;
use crate::{escape, hex};

const PAGE: usize = 500;
/// How often to look for new entries.
const POLL: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many characters of an undecodable field are shown.
const FIELD: usize = 200;

pub(super) async fn run(
    args: &TailArgs,
    settings: &Settings,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let topics = container.topics();
    let newest = topics.newest_id(&args.topic).await?;
    let mut is_missing = false;
    if newest.is_none()
        && let Err(error) = topics.groups(&args.topic).await
    {
        is_missing = true;
        if !args.follow || error.kind() != ErrorKind::NotFound {
            return Err(error.into());
        }
        let topic = args.topic.as_str();
        terminal.remark(format_args!(
            "topic {topic:?} does not exist yet; waiting for it"
        ));
    }
    let mut tail = Tail {
        args,
        topics,
        source: source(args, settings),
        start: args.from.and_then(EntryId::before_in_topic),
        after: Vec::new(),
        has_shown: false,
        left: args.max.unwrap_or(usize::MAX),
        reads_on: true,
        omitted: false,
    };
    tail.look_for_partitions(terminal).await?;
    if args.from.is_none() && !args.from_beginning && !is_missing {
        // Of a topic that did not exist, every entry has come since.
        tail.newest(terminal).await?;
    }
    loop {
        tail.pages(terminal).await?;
        if !args.follow || tail.left == 0 {
            if !tail.has_shown && !terminal.is_json() {
                terminal.remark("the topic has no entries");
            }
            if tail.omitted {
                return Err(Failure::Said(FAILED));
            }
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The source of events whose message has none of its own.
fn source(args: &TailArgs, settings: &Settings) -> String {
    let namespace = settings
        .namespace
        .as_deref()
        .filter(|name| !name.is_empty());
    let parts = ["urn:redstart"].into_iter().chain(namespace);
    let parts: Vec<&str> = parts.chain([args.topic.as_str()]).collect();
    args.source.clone().unwrap_or_else(|| parts.join(":"))
}

struct Tail<'a> {
    args: &'a TailArgs,
    topics: Topics,
    /// The source of events whose message has none.
    source: String,
    /// After which entry to begin.
    start: Option<EntryId>,
    /// Whether any entry was shown.
    has_shown: bool,
    /// The last entry shown of each partition.
    after: Vec<Option<EntryId>>,
    left: usize,
    /// Whether there is something to show after the last entry shown.
    reads_on: bool,
    /// Whether an entry has no envelope to show.
    omitted: bool,
}

impl Tail<'_> {
    /// Learns how many partitions the topic has. Entries before the first look of a partition count as not
    /// shown.
    async fn look_for_partitions(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let look = async || self.topics.partitions(&self.args.topic).await;
        let count = self.patiently(look, terminal).await?;
        self.after.resize(usize::from(count), self.start);
        Ok(())
    }

    /// Reads from the server. With --follow it waits for one that is away.
    async fn patiently<T>(
        &self,
        read: impl AsyncFn() -> Result<T, Error>,
        terminal: &mut Terminal<'_>,
    ) -> Result<T, Failure> {
        let mut pause = POLL;
        loop {
            match read().await {
                // Reading changes nothing, so every retryable error is worth another try.
                Err(error) if self.args.follow && error.is_retryable() => {
                    if pause == POLL {
                        terminal.remark(format_args!("{}; trying again", chain(&error)));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                done => return Ok(done?),
            }
        }
    }

    /// Shows the newest entries. Reads at least one, because following begins after the newest.
    async fn newest(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let wanted = self.args.last;
        let topic = &self.args.topic;
        let mut entries = Vec::new();
        for (partition, after) in (0..).zip(&mut self.after) {
            let latest = self
                .topics
                .latest_of_partition(topic, partition, wanted.max(1));
            let latest = latest.await?;
            *after = latest.last().map(|entry| entry.id);
            if latest.len() < wanted
                && let Some(first) = latest.first()
            {
                let oldest = self
                    .topics
                    .entries_of_partition(topic, partition, None, 1)
                    .await?;
                // Heavy entries come in short pages.
                if oldest.first().is_some_and(|oldest| oldest.id < first.id) {
                    return self.newest_of_heavy(wanted).await;
                }
            }
            entries.extend(latest);
        }
        self.reads_on = self.args.follow;
        entries.sort_by_key(|entry| entry.id);
        entries.drain(..entries.len().saturating_sub(wanted));
        self.show(entries, terminal)?;
        Ok(())
    }

    /// Goes back to the oldest of the newest entries, and holds one page of them at a time.
    async fn newest_of_heavy(&mut self, wanted: usize) -> Result<(), Failure> {
        let (mut before, mut left) = (None, wanted);
        while left > 0 {
            let topic = &self.args.topic;
            let page = self.topics.entries_before(topic, before, left).await?;
            let Some(last) = page.last() else { break };
            (before, left) = (Some(last.id), left - page.len());
        }
        self.after.fill(before.and_then(EntryId::before_in_topic));
        if !self.args.follow {
            self.left = self.left.min(wanted);
        }
        Ok(())
    }

    /// Shows the entries after the last one, to the end.
    async fn pages(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if !self.reads_on {
            return Ok(());
        }
        while self.left > 0 {
            if !self.has_shown {
                // The topic may have been created meanwhile.
                self.look_for_partitions(terminal).await?;
            }
            let max = PAGE.min(self.left);
            let mut entries = Vec::new();
            for (partition, page) in self
                .pages_of_all(max, terminal)
                .await?
                .into_iter()
                .enumerate()
            {
                if let Some(last) = page.last() {
                    self.after[partition] = Some(last.id);
                    self.has_shown = true;
                }
                entries.extend(page);
            }
            if entries.is_empty() {
                return Ok(());
            }
            // Each partition has its own clock, so one page is in the order of time and two may not be.
            entries.sort_by_key(|entry| entry.id);
            self.show(entries, terminal)?;
        }
        Ok(())
    }

    /// Reads one page of each partition, all at once.
    async fn pages_of_all(
        &self,
        max: usize,
        terminal: &mut Terminal<'_>,
    ) -> Result<Vec<Vec<Entry>>, Failure> {
        let (topics, topic) = (&self.topics, &self.args.topic);
        let read = async || {
            let pages = (0..)
                .zip(&self.after)
                .map(|(number, after)| topics.entries_of_partition(topic, number, *after, max));
            join_all(pages).await.into_iter().collect()
        };
        self.patiently(read, terminal).await
    }

    fn show(&mut self, entries: Vec<Entry>, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        for entry in entries.iter().take(self.left) {
            if self.args.envelope {
                self.omitted |= !whole(entry, terminal, envelope_json)?;
            } else if self.args.format == Some(Format::CloudEvents) {
                let event = |envelope: &Envelope| cloud_event(envelope, &self.source);
                self.omitted |= !whole(entry, terminal, event)?;
            } else if terminal.is_json() {
                terminal.json(&ListedEntry::from(entry))?;
            } else {
                terminal.line(line(entry))?;
            }
        }
        self.left = self.left.saturating_sub(entries.len());
        Ok(terminal.flush()?)
    }
}

fn cloud_event(envelope: &Envelope, source: &str) -> Result<Box<RawValue>, Error> {
    let event = envelope.to_cloud_event(source)?;
    let failed = |e| Error::new(ErrorKind::Encode, "encode CloudEvent", "is not JSON").because(e);
    RawValue::from_string(event).map_err(failed)
}

/// Writes the whole message of an entry, or the reason why it has none; returns whether it has one.
fn whole(
    entry: &Entry,
    terminal: &mut Terminal<'_>,
    to_json: impl Fn(&Envelope) -> Result<Box<RawValue>, Error>,
) -> Result<bool, Failure> {
    let json = match &entry.envelope {
        Ok(envelope) => to_json(envelope).map_err(|error| chain(&error)),
        Err(flaw) => Err(format!("undecodable: {flaw}")),
    };
    match json {
        Ok(json) => terminal.json(&json)?,
        Err(rule) => {
            terminal.remark(format_args!("{}: {rule}", entry.id));
            return Ok(false);
        }
    }
    Ok(true)
}

fn line(entry: &Entry) -> String {
    match &entry.envelope {
        Ok(envelope) => readable(entry.id, envelope),
        Err(flaw) => {
            let mut text = format!(
                "{}  undecodable: {}",
                entry.id,
                escape::text(&flaw.to_string())
            );
            for (name, value) in &entry.fields {
                let name = escape::excerpt(&String::from_utf8_lossy(name), FIELD);
                let value = match std::str::from_utf8(value) {
                    Ok(value) => escape::excerpt(value, FIELD),
                    Err(_) => format!("0x{}", escape::excerpt(&hex::word(value), FIELD)),
                };
                text = format!("{text}  {name}={value}");
            }
            text
        }
    }
}

fn readable(id: EntryId, envelope: &Envelope) -> String {
    let payload = envelope.raw_payload().to_codec(Codec::Json);
    let payload = match &payload {
        Ok(payload) => escape::json(&String::from_utf8_lossy(payload.as_bytes())),
        Err(error) => format!("<{}>", escape::text(&chain(error))),
    };
    let kind = escape::text(envelope.message_type());
    let mut text = format!("{id}  {}  {kind}  {payload}", envelope.created_at());
    let notes = [("key", envelope.key()), ("tenant", envelope.tenant())];
    for (name, value) in notes {
        if let Some(value) = value {
            text = format!("{text}  {name}={}", escape::text(value));
        }
    }
    text
}
