//! Values: a connection per task, no pool.

use redis::aio::MultiplexedConnection;
use redis::{Script, ToRedisArgs};
use uuid::Uuid;

use super::connect;
use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, SIZE, Work};

const CAS: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2]) return 1 end return 0";
/// Completes a claim that is still the caller's.
const COMPLETE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2], 'EX', 86400) return 1 end return 0";

fn order() -> Vec<u8> {
    rmp_serde::to_vec_named(&Order::new(1, SIZE)).expect("encodes")
}

pub(crate) async fn kv(server: &Server, work: Work, count: u64, tasks: u64) -> Spent {
    let mut connections = Vec::new();
    for task in 0..tasks {
        // As many connections as the pool has: one per task.
        let mut connection = connect(server).await;
        let key = format!("raw-{task}");
        redis::cmd("DEL")
            .arg(&key)
            .exec_async(&mut connection)
            .await
            .expect("DEL");
        if !matches!(work, Work::Incr) {
            set(&mut connection, &key, order()).await;
        }
        connections.push((key, connection));
    }
    let meter = Meter::start(server);
    let mut running = tokio::task::JoinSet::new();
    for (key, mut connection) in connections {
        running.spawn(async move {
            let (cas, complete) = (Script::new(CAS), Script::new(COMPLETE));
            for number in 0..count / tasks {
                match work {
                    Work::Get => get(&mut connection, &key).await,
                    Work::Set => set(&mut connection, &key, order()).await,
                    Work::Incr => incr(&mut connection, &key).await,
                    Work::Cas => swap(&mut connection, &cas, &key, order(), order()).await,
                    Work::Once => {
                        let (key, token) = (format!("{key}-{number}"), Uuid::new_v4().to_string());
                        claim(&mut connection, &key, &token).await;
                        let result = rmp_serde::to_vec_named(&number).expect("encodes");
                        swap(&mut connection, &complete, &key, token, result).await;
                    }
                }
            }
        });
    }
    running.join_all().await;
    meter.stop()
}

async fn get(connection: &mut MultiplexedConnection, key: &str) {
    let bytes: Vec<u8> = redis::cmd("GET")
        .arg(key)
        .query_async(connection)
        .await
        .expect("GET");
    let order: Order = rmp_serde::from_slice(&bytes).expect("decodes");
    assert_eq!(order.id, 1);
}

async fn set(connection: &mut MultiplexedConnection, key: &str, value: Vec<u8>) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec_async(connection)
        .await
        .expect("SET");
}

async fn incr(connection: &mut MultiplexedConnection, key: &str) {
    let _: i64 = redis::cmd("INCRBY")
        .arg(key)
        .arg(1)
        .query_async(connection)
        .await
        .expect("INCRBY");
}

async fn claim(connection: &mut MultiplexedConnection, key: &str, token: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(token)
        .arg("NX")
        .arg("PX")
        .arg(30_000)
        .exec_async(connection)
        .await
        .expect("SET");
}

/// Puts a value in another one's place by a script.
async fn swap(
    connection: &mut MultiplexedConnection,
    script: &Script,
    key: &str,
    from: impl ToRedisArgs,
    to: impl ToRedisArgs,
) {
    let done: u64 = script
        .key(key)
        .arg(from)
        .arg(to)
        .invoke_async(connection)
        .await
        .expect("a script");
    assert_eq!(done, 1);
}
