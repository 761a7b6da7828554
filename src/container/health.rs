//! Whether the container works.

use serde::Serialize;

use crate::domain::{Error, describe};

/// Whether the container works, and where it does not, why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Health {
    /// Whether everything works.
    pub ok: bool,
    /// The bus: publishing, and the reading of every subscription.
    pub bus: HealthCheck,
    /// The key-value store.
    pub kv: HealthCheck,
}

/// Whether one part works.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HealthCheck {
    /// Whether it works.
    pub ok: bool,
    /// Why not; empty when it does.
    pub reasons: Vec<String>,
}

impl Health {
    /// The health of a service that cannot connect: nothing works, for the reason that the error
    /// tells.
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
