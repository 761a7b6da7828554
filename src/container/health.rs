//! Health: whether bus and store work.

use serde::Serialize;

use crate::domain::{Error, describe};

/// Whether the container works, with reasons if it does not.
///
/// [`Container::health`](crate::Container::health) returns it. Its JSON form suits a readiness probe.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Whether bus and store both work.
    pub ok: bool,
    /// The bus: the publisher's connection, and every subscription of the container.
    pub bus: HealthCheck,
    /// The key-value store.
    pub kv: HealthCheck,
}

/// Whether one part works, with reasons if it does not.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HealthCheck {
    /// Whether it works.
    pub ok: bool,
    /// Why it does not work; empty if it does.
    pub reasons: Vec<String>,
}

impl Health {
    /// Returns the health of a service that cannot connect: neither part works, because of `error`.
    #[must_use]
    pub fn of_error(error: &Error) -> Self {
        let check = HealthCheck::of(vec![describe(error)]);
        Self {
            ok: false,
            bus: check.clone(),
            kv: check,
        }
    }
}

impl HealthCheck {
    pub(super) fn of(reasons: Vec<String>) -> Self {
        Self {
            ok: reasons.is_empty(),
            reasons,
        }
    }
}
