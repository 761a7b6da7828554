//! Whether the container works.

use serde::Serialize;

/// Whether the container works, and where it does not, why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
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
#[non_exhaustive]
pub struct HealthCheck {
    /// Whether it works.
    pub ok: bool,
    /// Why not; empty when it does.
    pub reasons: Vec<String>,
}

impl HealthCheck {
    pub(super) fn of(reasons: Vec<String>) -> Self {
        Self {
            ok: reasons.is_empty(),
            reasons,
        }
    }
}
