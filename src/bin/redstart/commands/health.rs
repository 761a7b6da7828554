//! `health`: whether the bus and the key-value store work, and if not, why.

use redstart::{
    ErrorKind,
    container::{Health, HealthCheck},
};

use crate::escape;
use crate::failure::{FAILED, Failure, written};
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;

pub(super) async fn run(settings: &Settings, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let builder = settings.builder_for(NamespaceAccess::Read)?;
    let health = match builder.connect().await {
        Ok(container) => container.health().await,
        // A wrong setting says nothing about the server.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            return Err(Failure::of_settings(error));
        }
        Err(error) => Health::of_error(&error),
    };
    let told = if terminal.is_json() {
        terminal.json(&health)
    } else {
        lines(&health)
            .iter()
            .try_for_each(|line| terminal.line(escape::text(line)))
    };
    let ended = if health.ok {
        Ok(())
    } else {
        Err(Failure::Said(FAILED))
    };
    written(told, ended)
}

fn lines(health: &Health) -> [String; 3] {
    let all = if health.ok { "ok" } else { "not ok" };
    [
        all.to_owned(),
        line("bus", &health.bus),
        line("kv", &health.kv),
    ]
}

fn line(name: &str, check: &HealthCheck) -> String {
    match (check.ok, check.reasons.is_empty()) {
        (true, _) => format!("{name}: ok"),
        (false, true) => format!("{name}: not ok"),
        (false, false) => format!("{name}: not ok: {}", check.reasons.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_a_line_with_its_reasons() {
        let error = "a b".parse::<redstart::Topic>().unwrap_err();
        let mut health = Health::of_error(&error);
        let rule = "topic \"a b\": must match [A-Za-z0-9_.:-]{1,200}";
        assert_eq!(line("bus", &health.bus), format!("bus: not ok: {rule}"));
        health.kv.reasons.push("slow".to_owned());
        assert_eq!(line("kv", &health.kv), format!("kv: not ok: {rule}; slow"));
        health.kv.ok = true;
        assert_eq!(line("kv", &health.kv), "kv: ok");
    }
}
