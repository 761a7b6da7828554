//! Relays messages from an outbox in PostgreSQL, the table of `outbox.sql`, to their topics.
//!
//! A relay that dies between the publish and the commit leaves its rows in the table. The next relay
//! publishes them again, and deduplication recognises their ids: no topic gets a message twice.
//!
//! Reads `DATABASE_URL`, and the variables of Redstart. Several relays can run at once: each takes other
//! rows, so that a topic has the order of the inserts only while one relay runs.

mod round;

use std::error::Error;
use std::time::Duration;

use redstart::{Bus, Container};
use round::Row;
use sqlx::PgPool;

/// `SKIP LOCKED`: another relay's rows do not block this one.
const TAKE: &str = "SELECT seq, id::text, topic, type, key, payload::text FROM outbox \
                    WHERE error IS NULL ORDER BY seq LIMIT 500 FOR UPDATE SKIP LOCKED";

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
    let round = round::publish(bus, &rows).await;
    let finished = round.published.len() + round.refused.len();
    let delete = sqlx::query("DELETE FROM outbox WHERE seq = ANY($1)").bind(round.published);
    delete.execute(&mut *transaction).await?;
    for (number, error) in round.refused {
        let mark = sqlx::query("UPDATE outbox SET error = $2 WHERE seq = $1").bind(number);
        mark.bind(error).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    round
        .failure
        .map_or(Ok(finished), |error| Err(error.into()))
}
