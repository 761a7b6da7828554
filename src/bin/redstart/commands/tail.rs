//! `tail`: what a topic holds, without consuming it.

use std::time::Duration;

use redstart::{
    Container, Envelope,
    envelope::{Codec, EntryId},
    topics::{Entry, Topics},
};
use serde_json::json;
use serde_json::value::RawValue;

use crate::args::TailArgs;
use crate::console::Console;
use crate::failure::{Failure, chain};
use crate::{escape, shown};

const PAGE: usize = 500;
/// How often to look for what was published meanwhile.
const POLL: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How much is shown of a field that cannot be decoded, in characters.
const FIELD: usize = 200;

pub(super) async fn run(
    args: &TailArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let admin = container.topics();
    let newest = admin.newest_id(&args.topic).await?;
    if newest.is_none() && admin.get(&args.topic).await?.is_none() {
        if !args.follow {
            return Err(super::no_topic(&args.topic));
        }
        let topic = args.topic.as_str();
        console.remark(format_args!(
            "there is no topic {topic:?} yet; waiting for it"
        ));
    }
    let mut tail = Tail {
        args,
        admin,
        after: None,
        left: args.max.unwrap_or(usize::MAX),
    };
    if !args.from_beginning {
        tail.newest(console).await?;
    }
    loop {
        tail.pages(console).await?;
        if !args.follow || tail.left == 0 {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Tail<'a> {
    args: &'a TailArgs,
    admin: Topics,
    after: Option<EntryId>,
    left: usize,
}

impl Tail<'_> {
    /// The newest entries to start with; also when none is wanted, because the newest one is
    /// where following begins.
    async fn newest(&mut self, console: &mut Console<'_>) -> Result<(), Failure> {
        let wanted = self.args.last;
        let mut entries = self.admin.latest(&self.args.topic, wanted.max(1)).await?;
        self.after = entries.last().map(|entry| entry.id);
        if wanted == 0 {
            entries.clear();
        }
        self.show(entries, console)?;
        Ok(())
    }

    /// Shows what comes after, to the end.
    async fn pages(&mut self, console: &mut Console<'_>) -> Result<(), Failure> {
        if !self.args.follow && !self.args.from_beginning {
            return Ok(());
        }
        while self.left > 0 {
            let max = PAGE.min(self.left);
            let entries = self.page(max, console).await?;
            let Some(last) = entries.last() else {
                return Ok(());
            };
            self.after = Some(last.id);
            self.show(entries, console)?;
        }
        Ok(())
    }

    /// One page. Who follows goes on when the server is back.
    async fn page(&self, max: usize, console: &mut Console<'_>) -> Result<Vec<Entry>, Failure> {
        let mut pause = POLL;
        loop {
            match self
                .admin
                .entries_after(&self.args.topic, self.after, max)
                .await
            {
                // Reading changes nothing, so that also an unknown outcome is read again.
                Err(error) if self.args.follow && error.is_retryable() => {
                    if pause == POLL {
                        console.remark(format_args!("{}; trying again", chain(&error)));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                page => return Ok(page?),
            }
        }
    }

    fn show(&mut self, entries: Vec<Entry>, console: &mut Console<'_>) -> Result<(), Failure> {
        for entry in entries.iter().take(self.left) {
            let line = if console.is_json() {
                object(entry)?
            } else {
                line(entry)
            };
            console.line(line)?;
        }
        self.left = self.left.saturating_sub(entries.len());
        Ok(console.flush()?)
    }
}

fn object(entry: &Entry) -> Result<String, Failure> {
    let read = match &entry.envelope {
        Ok(envelope) => shown::wire(envelope),
        Err(flaw) => Err(flaw.to_string()),
    };
    let id = entry.id.to_string();
    let text = match read {
        Ok(envelope) => {
            #[derive(serde::Serialize)]
            struct Shown {
                entry: String,
                envelope: Box<RawValue>,
            }
            escape::to_json(&Shown {
                entry: id,
                envelope,
            })
        }
        Err(error) => escape::to_json(&json!({
            "entry": id,
            "error": error,
            "fields": shown::fields(&entry.fields),
        })),
    };
    Ok(text?)
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
                    Err(_) => format!("0x{}", escape::excerpt(&shown::hex(value), FIELD)),
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
