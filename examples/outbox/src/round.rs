//! Publishes the rows of one round.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use redstart::{Bus, Envelope, ErrorKind, PublishOptions, Topic};

/// Longer than the relay is ever down: the server remembers the published ids for this time.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Number, id, topic, type, key and payload.
pub(crate) type Row = (i64, String, String, String, Option<String>, String);

/// What became of the rows of a round. Rows that it does not name stay for the next one.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) published: Vec<i64>,
    /// Rows that no repeat can publish, and why.
    pub(crate) refused: Vec<(i64, String)>,
    /// The first error that a repeat may not meet.
    pub(crate) failure: Option<redstart::Error>,
}

/// Publishes rows in their order. A row that fails holds back the later rows of its topic.
pub(crate) async fn publish(bus: &Bus, rows: &[Row]) -> Round {
    let (mut round, mut held_back) = (Round::default(), HashSet::new());
    for rows in rows.chunk_by(|one, next| one.2 == next.2) {
        let name = &rows[0].2;
        if held_back.contains(name) {
            continue;
        }
        let (mut numbers, mut envelopes) = (Vec::new(), Vec::new());
        for row in rows {
            match envelope(row) {
                Ok(envelope) => {
                    numbers.push(row.0);
                    envelopes.push(envelope);
                }
                Err(error) => round.refused.push((row.0, error.to_string())),
            }
        }
        let topic = match Topic::new(name) {
            Ok(topic) => topic,
            Err(error) => {
                let refused = numbers.iter().map(|number| (*number, error.to_string()));
                round.refused.extend(refused);
                continue;
            }
        };
        let options = PublishOptions::new().with_deduplication(WINDOW);
        let results = bus.publish_all_with(&topic, &envelopes, options).await;
        for (number, result) in numbers.into_iter().zip(results) {
            match result {
                Ok(_) => round.published.push(number),
                // A repeat would fail the same way: such a row must not stop the others for ever.
                Err(error) if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Encode) => {
                    round.refused.push((number, error.to_string()));
                }
                Err(error) => {
                    held_back.insert(name);
                    round.failure.get_or_insert(error);
                }
            }
        }
    }
    round
}

fn envelope(row: &Row) -> Result<Envelope, Box<dyn Error>> {
    let (_, id, _, message_type, key, payload) = row;
    let payload: serde_json::Value = serde_json::from_str(payload)?;
    let envelope = Envelope::new(message_type, &payload)?.with_id(id.parse()?);
    Ok(match key {
        Some(key) => envelope.with_key(key),
        None => envelope,
    })
}
