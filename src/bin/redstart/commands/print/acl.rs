//! `print acl`: the access rules of the roles.

use std::collections::BTreeMap;

use clap::ValueEnum as _;
use redstart::{Namespace, Placement};

use super::namespace;
use crate::args::{AclArgs, Role};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::Terminal;

/// The namespace in the rules of the guide.
const EXAMPLE: &str = "shop";

/// The rules of a role as the guide has them: for placement `spread`, and for `together`.
macro_rules! example {
    ($role:literal) => {
        (
            include_str!(concat!("../../../../docs/acl/", $role, ".acl")),
            include_str!(concat!("../../../../docs/acl/together/", $role, ".acl")),
        )
    };
}

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
    let placement = settings.placement()?.unwrap_or_default();
    let lines = all
        .iter()
        .map(|role| (*role, line(*role, &namespace, placement)));
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
fn line(role: Role, namespace: &Namespace, placement: Placement) -> String {
    let (spread, together) = match role {
        Role::Producer => example!("producer"),
        Role::Consumer => example!("consumer"),
        Role::Stage => example!("stage"),
        Role::Operator => example!("operator"),
        Role::Viewer => example!("viewer"),
        Role::Janitor => example!("janitor"),
    };
    let name = namespace.as_str();
    let example = match placement {
        Placement::Together => together,
        _ => spread,
    };
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
            let spread = |namespace| super::line(*role, namespace, Placement::Spread);
            let line = spread(&namespace);
            assert!(!line.contains(EXAMPLE) && !line.contains('\n'), "{line}");
            assert!(
                line.contains("~{office:*}:") && line.contains("~{office}"),
                "{line}"
            );
            let same = spread(&Namespace::new(EXAMPLE).unwrap());
            assert_eq!(same, line.replace("office", EXAMPLE));
        }
    }

    #[test]
    fn together_the_rules_differ_in_the_names_of_keys_alone() {
        let shop = Namespace::new(EXAMPLE).unwrap();
        for role in Role::value_variants() {
            let mut renamed = line(*role, &shop, Placement::Spread);
            for (from, to) in [
                // Access to all keys would include values, which an operator may only read.
                ("%RW~{shop}:*", "%RW~{shop}:topics %RW~{shop}:schema"),
                ("~{shop:*}:", "~{shop}:t:*:"),
                ("~shop:", "~{shop}:v:"),
                ("~{shop}:t:*:* ", "~{shop}:t:* "),
            ] {
                renamed = renamed.replace(from, to);
            }
            assert_eq!(line(*role, &shop, Placement::Together), renamed);
        }
    }

    #[test]
    fn together_the_rules_name_one_slot_alone() {
        for role in Role::value_variants() {
            let namespace = Namespace::new("office").unwrap();
            let line = line(*role, &namespace, Placement::Together);
            let patterns: Vec<&str> = line.split('~').skip(1).collect();
            for pattern in &patterns {
                assert!(pattern.starts_with("{office}:"), "{role:?}: {pattern}");
            }
            // The values of a namespace are written by those roles that write them in the guide.
            let writes_values = line.contains("%RW~{office}:v:*");
            let expected = matches!(role, Role::Consumer | Role::Stage);
            assert_eq!(writes_values, expected, "{line}");
            assert!(!line.contains("W~{office}:* "), "{line}");
        }
    }
}
