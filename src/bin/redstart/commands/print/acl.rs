//! `print acl`: the access rules of the roles.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use redstart::Namespace;

use super::namespace;
use crate::args::{AclArgs, Role};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::Terminal;

/// The namespace in the rules of the guide.
const EXAMPLE: &str = "shop";

pub(super) fn run(
    args: &AclArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let Some(namespace) = namespace(settings)? else {
        let rule = "set --namespace or REDSTART_NAMESPACE: without a namespace, no rule can tell \
                    Redstart's keys from others";
        return Err(Failure::usage(rule));
    };
    let all = match args.roles.is_empty() {
        true => Role::value_variants(),
        false => &args.roles,
    };
    let lines = all.iter().map(|role| (*role, line(*role, &namespace)));
    if terminal.is_json() {
        let name = |role: Role| format!("{role:?}").to_lowercase();
        let by_role: BTreeMap<String, String> =
            lines.map(|(role, line)| (name(role), line)).collect();
        return Ok(terminal.json(&by_role)?);
    }
    for (_, line) in lines {
        terminal.line(line)?;
    }
    Ok(())
}

/// The rules of a role in a namespace.
fn line(role: Role, namespace: &Namespace) -> String {
    let example = match role {
        Role::Producer => include_str!("../../../../docs/acl/producer.acl"),
        Role::Consumer => include_str!("../../../../docs/acl/consumer.acl"),
        Role::Stage => include_str!("../../../../docs/acl/stage.acl"),
        Role::Operator => include_str!("../../../../docs/acl/operator.acl"),
        Role::Viewer => include_str!("../../../../docs/acl/viewer.acl"),
        Role::Janitor => include_str!("../../../../docs/acl/janitor.acl"),
    };
    let name = namespace.as_str();
    let mut line = example.trim_end().to_owned();
    for (start, end) in [("~{", ":"), ("~{", "}"), ("~", ":")] {
        let from = format!("{start}{EXAMPLE}{end}");
        line = line.replace(&from, &format!("{start}{name}{end}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_role_name_the_namespace_alone() {
        for role in Role::value_variants() {
            let namespace = Namespace::new("office").unwrap();
            let line = line(*role, &namespace);
            assert!(!line.contains(EXAMPLE) && !line.contains('\n'), "{line}");
            assert!(
                line.contains("~{office:*}:") && line.contains("~{office}"),
                "{line}"
            );
            let same = super::line(*role, &Namespace::new(EXAMPLE).unwrap());
            assert_eq!(same, line.replace("office", EXAMPLE));
        }
    }
}
