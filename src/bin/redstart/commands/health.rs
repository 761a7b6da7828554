//! `health`: whether bus and store work, and where they do not, why.

use redstart::{
    ErrorKind,
    container::{Health, HealthCheck},
};
use serde::Serialize;

use crate::console::Console;
use crate::escape;
use crate::failure::{FAILED, Failure, chain};
use crate::settings::{NamespaceAccess, Settings};

/// As the library's, which nobody else can make: without a container there is still an answer.
#[derive(Serialize)]
struct Shown {
    ok: bool,
    bus: Part,
    kv: Part,
}

#[derive(Serialize)]
struct Part {
    ok: bool,
    reasons: Vec<String>,
}

impl From<Health> for Shown {
    fn from(health: Health) -> Self {
        Self {
            ok: health.ok,
            bus: Part::from(health.bus),
            kv: Part::from(health.kv),
        }
    }
}

impl From<HealthCheck> for Part {
    fn from(check: HealthCheck) -> Self {
        Self {
            ok: check.ok,
            reasons: check.reasons,
        }
    }
}

pub(super) async fn run(settings: &Settings, console: &mut Console<'_>) -> Result<(), Failure> {
    let health = match settings.builder_to(NamespaceAccess::Look)?.connect().await {
        Ok(container) => Shown::from(container.health().await),
        // A setting that makes no sense says nothing about the server.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            return Err(Failure::of_settings(error));
        }
        // A container that cannot be made has nobody to ask.
        Err(error) => {
            let part = || Part {
                ok: false,
                reasons: vec![chain(&error)],
            };
            Shown {
                ok: false,
                bus: part(),
                kv: part(),
            }
        }
    };
    if console.is_json() {
        console.json(&health)?;
    } else {
        for line in lines(&health) {
            console.line(escape::text(&line))?;
        }
    }
    if health.ok {
        Ok(())
    } else {
        Err(Failure::Said(FAILED))
    }
}

fn lines(health: &Shown) -> [String; 3] {
    let part = |name: &str, part: &Part| match (part.ok, part.reasons.is_empty()) {
        (true, _) => format!("{name}: ok"),
        (false, true) => format!("{name}: not ok"),
        (false, false) => format!("{name}: not ok: {}", part.reasons.join("; ")),
    };
    [
        if health.ok { "ok" } else { "not ok" }.to_owned(),
        part("bus", &health.bus),
        part("kv", &health.kv),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_line_and_its_reasons() {
        let health = Shown {
            ok: false,
            bus: Part {
                ok: true,
                reasons: Vec::new(),
            },
            kv: Part {
                ok: false,
                reasons: vec!["a".to_owned(), "b".to_owned()],
            },
        };
        assert_eq!(lines(&health), ["not ok", "bus: ok", "kv: not ok: a; b"]);
    }
}
