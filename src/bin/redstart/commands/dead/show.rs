//! `dead show`: one dead letter in full.

use redstart::{Container, Envelope, dead_letters::DeadLetter, envelope::Codec};

use crate::args::ShowArgs;
use crate::console::Console;
use crate::failure::{Failure, chain};
use crate::{duration, escape, shown};

/// How much is shown of what cannot be decoded, in lines of 16 bytes.
const ROWS: usize = 64;

pub(super) async fn run(
    args: &ShowArgs,
    container: &Container,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    super::check(&args.of, container).await?;
    let (topic, group) = (&args.of.topic, &args.of.group);
    let found = container
        .dead_letters()
        .get(topic, group, &[args.id])
        .await?
        .pop();
    let Some(letter) = found else {
        let text = format!("{topic}/{group} has no dead letter {}", args.id);
        return Err(Failure::new(text));
    };
    if console.is_json() {
        return Ok(console.line(escape::json(&letter.to_json()))?);
    }
    let envelope = letter.envelope();
    facts(&letter, envelope.as_ref().ok(), console)?;
    timeline(&letter, envelope.as_ref().ok(), console)?;
    match &envelope {
        Ok(envelope) => {
            headers(envelope, console)?;
            payload(envelope, console)?;
        }
        Err(error) => {
            console.line(format_args!(
                "\nundecodable: {}",
                escape::text(&chain(error))
            ))?;
            raw(&letter, if args.full { usize::MAX } else { ROWS }, console)?;
        }
    }
    Ok(())
}

fn facts(
    letter: &DeadLetter,
    envelope: Option<&Envelope>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let attempts = match letter.attempts {
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    console.line(format_args!(
        "dead letter {} of {}/{}",
        letter.id, letter.topic, letter.group
    ))?;
    let redriven = match (letter.history.redriven, letter.history.redriven_by) {
        (0, _) => None,
        (count, None) => Some(format!("{count} times")),
        (count, Some(operation)) => Some(format!("{count} times, last by operation {operation}")),
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
            Some(letter.message_type.clone()).filter(|kind| !kind.is_empty()),
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
            console.line(format_args!("  {name:<12} {}", escape::text(&fact)))?;
        }
    }
    Ok(())
}

/// What happened, in its order, each with the time since the one before.
fn timeline(
    letter: &DeadLetter,
    envelope: Option<&Envelope>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut events = Vec::new();
    events.extend(envelope.map(|one| (one.created_at(), "written".to_owned())));
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
    console.line("\ntimeline")?;
    let mut before: Option<i64> = None;
    for (time, text) in events {
        // Services and the server have clocks of their own.
        let since = before.map(|before| time.as_millis() - before);
        let since = since.and_then(|millis| u64::try_from(millis).ok());
        let since = since.map_or_else(String::new, |millis| {
            format!(
                "+{}",
                duration::short(std::time::Duration::from_millis(millis))
            )
        });
        before = Some(time.as_millis());
        console.line(format_args!(
            "  {time}  {since:<12}  {}",
            escape::text(&text)
        ))?;
    }
    Ok(())
}

fn headers(envelope: &Envelope, console: &mut Console<'_>) -> Result<(), Failure> {
    if !envelope.headers().is_empty() {
        console.line("\nheaders")?;
    }
    for (name, value) in envelope.headers() {
        console.line(format_args!(
            "  {}: {}",
            escape::text(name),
            escape::text(value)
        ))?;
    }
    Ok(())
}

fn payload(envelope: &Envelope, console: &mut Console<'_>) -> Result<(), Failure> {
    let payload = envelope.raw_payload();
    let codec = match payload.codec() {
        Codec::Json => "json",
        _ => "msgpack",
    };
    console.line(format_args!(
        "\npayload, {codec}, {} bytes",
        payload.as_bytes().len()
    ))?;
    match payload.to_codec(Codec::Json) {
        Ok(text) => {
            for line in escape::json_lines(&String::from_utf8_lossy(text.as_bytes())) {
                console.line(format_args!("  {line}"))?;
            }
        }
        // MessagePack can say what JSON cannot.
        Err(error) => {
            console.line(format_args!("  no JSON: {}", escape::text(&chain(&error))))?;
            for line in shown::hex_view(payload.as_bytes()) {
                console.line(format_args!("  {line}"))?;
            }
        }
    }
    Ok(())
}

fn raw(letter: &DeadLetter, rows: usize, console: &mut Console<'_>) -> Result<(), Failure> {
    for (name, value) in &letter.fields {
        let name = escape::text(&String::from_utf8_lossy(name));
        console.line(format_args!("\nfield {name}, {} bytes", value.len()))?;
        let end = rows.saturating_mul(16).min(value.len());
        for line in shown::hex_view(&value[..end]) {
            console.line(format_args!("  {line}"))?;
        }
        if end < value.len() {
            console.line(format_args!(
                "  … {} bytes more; --full shows them",
                value.len() - end
            ))?;
        }
    }
    Ok(())
}
