//! Relays messages from an outbox in PostgreSQL, the table of `outbox.sql`, to their topics.
//!
//! A relay that dies between the publish and the commit leaves its rows in the table. The next relay
//! publishes them again, and deduplication recognises their ids: no topic gets a message twice.
//!
//! Reads `DATABASE_URL`, and the variables of Redstart. Several relays can run at once: each takes other
//! rows, so that a topic has the order of the inserts only while one relay runs.

use std::error::Error;
use std::time::Duration;

use redstart::{Bus, Container, Envelope, ErrorKind, PublishOptions, Topic};
use sqlx::PgPool;

/// Longer than the relay is ever down: the server remembers the published ids for this time.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// `SKIP LOCKED`: another relay's rows do not block this one.
const TAKE: &str = "SELECT seq, id::text, topic, type, key, payload::text FROM outbox \
                    WHERE error IS NULL ORDER BY seq LIMIT 500 FOR UPDATE SKIP LOCKED";

type Row = (i64, String, String, String, Option<String>, String);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    let container = Container::from_env().await?;
    let bus = container.bus();
    let relaying = async {
        loop {
            let pause = match relay(&pool, &bus).await {
                Ok(0) => Duration::from_millis(100),
                Ok(_) => continue,
                Err(error) => {
                    eprintln!("{error}; trying again");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        // A dropped transaction is rolled back, as after a crash.
        report = container.run_until_signal(Duration::from_secs(10)) => println!("{}", report?),
        () = relaying => {}
    }
    Ok(())
}

/// Publishes the oldest rows and deletes them. Returns how many it has finished.
async fn relay(pool: &PgPool, bus: &Bus) -> Result<usize, Box<dyn Error>> {
    let mut transaction = pool.begin().await?;
    let rows: Vec<Row> = sqlx::query_as(TAKE).fetch_all(&mut *transaction).await?;
    let (mut published, mut refused, mut failure) = (Vec::new(), Vec::new(), None);
    for rows in rows.chunk_by(|one, next| one.2 == next.2) {
        let (mut numbers, mut envelopes) = (Vec::new(), Vec::new());
        for row in rows {
            match envelope(row) {
                Ok(envelope) => {
                    numbers.push(row.0);
                    envelopes.push(envelope);
                }
                Err(error) => refused.push((row.0, error.to_string())),
            }
        }
        let topic = match Topic::new(&rows[0].2) {
            Ok(topic) => topic,
            Err(error) => {
                refused.extend(numbers.iter().map(|number| (*number, error.to_string())));
                continue;
            }
        };
        let options = PublishOptions::new().with_deduplication(WINDOW);
        let results = bus.publish_all_with(&topic, &envelopes, options).await;
        for (number, result) in numbers.into_iter().zip(results) {
            match result {
                Ok(_) => published.push(number),
                // A repeat would fail the same way: such a row must not stop the others for ever.
                Err(error) if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Encode) => {
                    refused.push((number, error.to_string()));
                }
                // The row stays, and so do the rows of this topic after it.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    let finished = published.len() + refused.len();
    let delete = sqlx::query("DELETE FROM outbox WHERE seq = ANY($1)").bind(published);
    delete.execute(&mut *transaction).await?;
    for (number, error) in refused {
        let mark = sqlx::query("UPDATE outbox SET error = $2 WHERE seq = $1").bind(number);
        mark.bind(error).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    failure.map_or(Ok(finished), |error| Err(error.into()))
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
