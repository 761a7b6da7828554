//! Clients of the key-value store: registers, and claims that are completed once.

use std::time::Duration;

use bytes::Bytes;
use redstart::{Error, ErrorKind, ports::ClaimResult};

use crate::history::{Claimed, Event, Op, Told, now};
use crate::worker::{Work, calm};

/// How many clients a process has.
const CLIENTS: u64 = 3;
/// How long a register is used before the next one: histories stay short enough to check.
const REGISTER: Duration = Duration::from_millis(1500);
/// The largest number of operations of a client on one register.
const MOST: u32 = 14;
const LEASE: Duration = Duration::from_millis(600);
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn use_them(work: &Work) {
    for client in 0..CLIENTS {
        let mut random = fastrand::Rng::with_seed(work.spec.seed ^ (client << 8));
        let mut claims = random.fork();
        let (one, two) = (work.clone(), work.clone());
        tokio::spawn(async move { registers(&one, &mut random).await });
        tokio::spawn(async move { claim(&two, &mut claims).await });
    }
}

async fn registers(work: &Work, random: &mut fastrand::Rng) {
    let kv = work.container.kv();
    let (mut key, mut done) = (String::new(), 0);
    let mut last_seen = None;
    while !calm(work.journal.path()).exists() {
        let current = format!("register-{}", u128::from(now()) / REGISTER.as_micros());
        if current != key {
            (key, done, last_seen) = (current, 0, None);
        }
        if done < MOST {
            done += 1;
            let op = match random.u8(0..10) {
                0..4 => Op::Get,
                4 => Op::Set(work.numbers.next()),
                _ => Op::CasResult {
                    expected: last_seen,
                    new: work.numbers.next(),
                },
            };
            let call = work.numbers.next();
            let asked = Event::Asked {
                key: key.clone(),
                call,
                op,
            };
            work.journal.write(asked);
            let told = match op {
                Op::Get => kv.get(&key).await.map(Told::Got),
                Op::Set(value) => kv.set_with_ttl(&key, &value, DAY).await.map(|()| Told::Set),
                Op::CasResult { expected, new } => kv
                    .cas(&key, expected.as_ref(), &new, Some(DAY))
                    .await
                    .map(Told::Swapped),
            };
            let told = told.unwrap_or_else(|error| match is_unknown(&error) {
                true => Told::Unknown,
                false => Told::No,
            });
            match (op, told) {
                (_, Told::Got(value)) => last_seen = value,
                (Op::Set(new), Told::Set) | (Op::CasResult { new, .. }, Told::Swapped(true)) => {
                    last_seen = Some(new);
                }
                _ => {}
            }
            let key = key.clone();
            work.journal.write(Event::Told { key, call, told });
        }
        tokio::time::sleep(Duration::from_millis(random.u64(10..150))).await;
    }
}

fn is_unknown(error: &Error) -> bool {
    error.kind() == ErrorKind::OutcomeUnknown
}

async fn claim(work: &Work, random: &mut fastrand::Rng) {
    let kv = work.container.kv();
    while !calm(work.journal.path()).exists() {
        tokio::time::sleep(Duration::from_millis(random.u64(50..400))).await;
        let key = format!("once-{}", now() / 2_000_000);
        let token = work.numbers.next();
        let name = token.to_string();
        let claimed = match kv.port().claim(&key, &name, LEASE).await {
            Ok(ClaimResult::Claimed) => Claimed::Mine,
            Ok(ClaimResult::Busy) => Claimed::Busy,
            Ok(ClaimResult::Done(result)) => Claimed::Done(owner(result)),
            // Nobody in this run begins a claim or stores another value under its key.
            Ok(ClaimResult::Begun | ClaimResult::Value) => Claimed::No,
            Err(error) if is_unknown(&error) => Claimed::Unknown,
            Err(_) => Claimed::No,
        };
        work.journal.write(Event::Claim {
            key: key.clone(),
            token,
            claimed,
        });
        if claimed != Claimed::Mine {
            continue;
        }
        // Sometimes longer than the lease: another client then takes the claim over.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1000))).await;
        if random.u8(0..8) == 0 {
            let _ = kv.port().release_claim(&key, &name).await;
            continue;
        }
        work.journal.write(Event::Complete {
            key: key.clone(),
            token,
        });
        let result = Bytes::from(name.clone());
        let claimed = match kv.port().complete_claim(&key, &name, result, DAY).await {
            Ok(true) => Claimed::Mine,
            Ok(false) => Claimed::Busy,
            Err(error) if is_unknown(&error) => Claimed::Unknown,
            Err(_) => Claimed::No,
        };
        work.journal.write(Event::Completed {
            key,
            token,
            claimed,
        });
    }
}

/// Under which token a result was stored.
fn owner(result: Option<Bytes>) -> u64 {
    let text = String::from_utf8(result.unwrap_or_default().to_vec());
    text.ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u64::MAX)
}
