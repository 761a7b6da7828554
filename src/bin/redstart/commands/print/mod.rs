//! `print`: files that help to run Redstart.

mod acl;
mod exporter;
mod keda;
mod systemd;

use std::collections::BTreeMap;

use redstart::{Namespace, Placement};

use crate::args::{PrintArgs, PrintWhat};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::Terminal;

pub(super) fn run(
    args: &PrintArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (name, text) = match &args.what {
        PrintWhat::Acl(args) => return acl::run(args, settings, terminal),
        PrintWhat::Alerts => (
            "redstart.yaml".to_owned(),
            include_str!("../../../../docs/ops/alerts.yaml").to_owned(),
        ),
        PrintWhat::Dashboard => (
            "redstart.json".to_owned(),
            include_str!("../../../../docs/ops/dashboard.json").to_owned(),
        ),
        PrintWhat::Exporter(args) => exporter::file(args, &Names::of(settings)?),
        PrintWhat::Keda(args) => keda::file(args, &Names::of(settings)?),
        PrintWhat::Systemd(args) => systemd::file(args)?,
    };
    if terminal.is_json() {
        return Ok(terminal.json(&BTreeMap::from([(name, text)]))?);
    }
    Ok(terminal.bytes(text.as_bytes())?)
}

/// The namespace of the settings, where one is set.
fn namespace(settings: &Settings) -> Result<Option<Namespace>, Failure> {
    let named = settings
        .namespace
        .as_deref()
        .filter(|name| !name.is_empty());
    named
        .map(Namespace::new)
        .transpose()
        .map_err(Failure::of_settings)
}

/// The names of keys, as the settings have them.
struct Names {
    namespace: Option<Namespace>,
    is_together: bool,
}

impl Names {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        let is_together = settings.placement()? == Some(Placement::Together);
        let namespace = namespace(settings)?;
        if is_together && namespace.is_none() {
            let rule = "set --namespace or REDSTART_NAMESPACE: placement together needs one";
            return Err(Failure::usage(rule));
        }
        Ok(Self {
            namespace,
            is_together,
        })
    }

    /// What the keys of a topic begin with, before a colon; `*` for all topics.
    fn topic(&self, topic: &str) -> String {
        match &self.namespace {
            Some(namespace) if self.is_together => format!("{{{namespace}}}:t:{topic}"),
            Some(namespace) => format!("{{{namespace}:{topic}}}"),
            None => format!("{{{topic}}}"),
        }
    }
}

/// Replaces `%NAME%` by values, each once over the whole text.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let known = values
            .iter()
            .find_map(|(name, value)| Some((value, after.strip_prefix(name)?.strip_prefix('%')?)));
        match known {
            Some((value, after)) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_filled_in_again() {
        let values = [("A", "%B%"), ("B", "b")];
        assert_eq!(fill("%A% %B% 5% %C% %%", &values), "%B% b 5% %C% %%");
    }
}
