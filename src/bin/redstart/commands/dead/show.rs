//! `dead show`: one dead letter in full.

use redstart::{Container, Envelope, dead_letters::DeadLetter, envelope::Codec};

use crate::args::ShowArgs;
use crate::failure::{Failure, chain};
use crate::terminal::Terminal;
use crate::{duration, escape, hex};

/// How many rows of 16 bytes are shown of an undecodable field.
const ROWS: usize = 64;

pub(super) async fn run(
    args: &ShowArgs,
    container: &Container,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let dead = super::dead_letters_of(&args.of, container).await?;
    let letter = super::find(&args.of, args.id, &dead).await?;
    if terminal.is_json() {
        return Ok(terminal.line(escape::json(&letter.to_json()))?);
    }
    let envelope = letter.envelope();
    facts(&letter, envelope.as_ref().ok(), terminal)?;
    timeline(&letter, envelope.as_ref().ok(), terminal)?;
    match &envelope {
        Ok(envelope) => {
            headers(envelope, terminal)?;
            payload(envelope, terminal)?;
        }
        Err(error) => {
            terminal.line(format_args!(
                "\nundecodable: {}",
                escape::text(&chain(error))
            ))?;
            raw(&letter, if args.full { usize::MAX } else { ROWS }, terminal)?;
        }
    }
    Ok(())
}

fn facts(
    letter: &DeadLetter,
    envelope: Option<&Envelope>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let attempts = match letter.attempts {
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    terminal.line(format_args!(
        "dead letter {} of {}/{}",
        letter.id, letter.topic, letter.group
    ))?;
    let redriven = match (letter.history.redriven, letter.history.redriven_by) {
        (0, _) => None,
        (count, None) => Some(times(count)),
        (count, Some(operation)) => {
            Some(format!("{}, last by operation {operation}", times(count)))
        }
    };
    let facts = [
        (
            "reason",
            Some(format!("{}, after {attempts}", letter.reason)),
        ),
        ("error", Some(letter.error.clone())),
        ("cause", Some(letter.fingerprint.clone())),
        (
            "type",
            Some(letter.message_type.clone()).filter(|name| !name.is_empty()),
        ),
        ("message", letter.message_id.map(|id| id.to_string())),
        ("correlation", letter.correlation.clone()),
        ("tenant", letter.tenant.clone()),
        ("key", envelope.and_then(|one| one.key().map(str::to_owned))),
        ("handler", Some(letter.handler.clone())),
        ("consumer", Some(letter.consumer.clone())),
        ("origin", Some(letter.history.origin.to_string())),
        ("redriven", redriven),
        (
            "imported",
            letter
                .imported_from
                .as_ref()
                .map(|from| format!("from {from}")),
        ),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            terminal.line(format_args!("  {name:<12} {}", escape::text(&fact)))?;
        }
    }
    Ok(())
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// Writes the events in order, each with the time since the one before.
fn timeline(
    letter: &DeadLetter,
    envelope: Option<&Envelope>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut events = Vec::new();
    events.extend(envelope.map(|one| (one.created_at(), "created".to_owned())));
    events.extend(
        letter
            .history
            .origin
            .time()
            .map(|time| (time, "published".to_owned())),
    );
    for attempt in &letter.history.failures {
        let (number, consumer) = (attempt.number, &attempt.consumer);
        let text = format!("attempt {number} on {consumer} failed: {}", attempt.error);
        events.push((attempt.at, text));
    }
    events.extend(letter.id.time().map(|time| (time, "dead".to_owned())));
    terminal.line("\ntimeline")?;
    let mut before: Option<i64> = None;
    for (time, text) in events {
        // Services and the server have different clocks: a step back has no duration.
        let since = before.map(|before| time.as_millis() - before);
        let since = since.and_then(|millis| u64::try_from(millis).ok());
        let since = since.map_or_else(String::new, |millis| {
            format!(
                "+{}",
                duration::short(std::time::Duration::from_millis(millis))
            )
        });
        before = Some(time.as_millis());
        terminal.line(format_args!(
            "  {time}  {since:<12}  {}",
            escape::text(&text)
        ))?;
    }
    Ok(())
}

fn headers(envelope: &Envelope, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if !envelope.headers().is_empty() {
        terminal.line("\nheaders")?;
    }
    for (name, value) in envelope.headers() {
        terminal.line(format_args!(
            "  {}: {}",
            escape::text(name),
            escape::text(value)
        ))?;
    }
    Ok(())
}

fn payload(envelope: &Envelope, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let payload = envelope.raw_payload();
    let codec = match payload.codec() {
        Codec::Json => "json",
        _ => "msgpack",
    };
    terminal.line(format_args!(
        "\npayload, {codec}, {} bytes",
        payload.as_bytes().len()
    ))?;
    match payload.to_codec(Codec::Json) {
        Ok(text) => {
            for line in escape::json_lines(&String::from_utf8_lossy(text.as_bytes())) {
                terminal.line(format_args!("  {line}"))?;
            }
        }
        // MessagePack has values that JSON cannot express.
        Err(error) => {
            terminal.line(format_args!(
                "  not expressible as JSON: {}",
                escape::text(&chain(&error))
            ))?;
            for line in hex::view(payload.as_bytes()) {
                terminal.line(format_args!("  {line}"))?;
            }
        }
    }
    Ok(())
}

fn raw(letter: &DeadLetter, rows: usize, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    for (name, value) in &letter.fields {
        let name = escape::text(&String::from_utf8_lossy(name));
        terminal.line(format_args!("\nfield {name}, {} bytes", value.len()))?;
        let end = rows.saturating_mul(16).min(value.len());
        for line in hex::view(&value[..end]) {
            terminal.line(format_args!("  {line}"))?;
        }
        if end < value.len() {
            terminal.line(format_args!(
                "  … {} more bytes; --full shows them",
                value.len() - end
            ))?;
        }
    }
    Ok(())
}
