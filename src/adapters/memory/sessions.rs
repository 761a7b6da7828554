//! The answers to the last call of each session of effects.

use std::collections::HashMap;

use crate::domain::{ConsumerName, Error, ErrorKind, whole_millis};
use crate::store::{EffectFate, GroupAt, SESSION_LIVES};

/// Below this many sessions, expired ones are only removed when they are met.
const SWEEP: usize = 256;

/// The name of a consumer's session.
pub(super) fn session_of(at: &GroupAt, consumer: &ConsumerName) -> String {
    format!("{at}/{consumer}")
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    calls: HashMap<String, Call>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Call {
    number: u64,
    answer: Vec<EffectFate>,
    expires: u64,
}

impl Sessions {
    /// The answer that an earlier call of the same number got.
    pub(super) fn answer(
        &self,
        session: &str,
        number: u64,
        now: u64,
    ) -> Result<Option<Vec<EffectFate>>, Error> {
        let call = self.calls.get(session);
        match call.filter(|call| now < call.expires) {
            Some(call) if call.number == number => Ok(Some(call.answer.clone())),
            Some(call) if call.number > number => {
                let last = call.number;
                let rule = format!("call {number} of the session comes after call {last}");
                Err(Error::new(ErrorKind::Refused, "commit", rule))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn remove(&mut self, session: &str) {
        self.calls.remove(session);
    }

    pub(super) fn note(&mut self, session: String, number: u64, answer: &[EffectFate], now: u64) {
        let call = Call {
            number,
            answer: answer.to_vec(),
            expires: now.saturating_add(whole_millis(SESSION_LIVES)),
        };
        self.calls.insert(session, call);
        if self.calls.len() > self.sweep_at.max(SWEEP) {
            self.calls.retain(|_, call| now < call.expires);
            self.sweep_at = self.calls.len() * 2;
        }
    }
}
