//! `print keda`: a ScaledObject for the consumers of a group.

use super::{Names, fill};
use crate::args::KedaArgs;

/// The file's name and its text.
pub(super) fn file(args: &KedaArgs, names: &Names) -> (String, String) {
    let (topic, group) = (args.of.topic.as_str(), args.of.group.as_str());
    let tag = names.topic(topic);
    let keys = [
        format!("{tag}:log"),
        format!("{tag}:group:{group}:redo"),
        format!("{tag}:group:{group}:retry"),
    ];
    let acl = format!(
        "user redstart-keda off ~{} ~{} ~{} -@all +ping +hello +select +info +xinfo|groups +xpending \
         +type +zcard +llen +scard +hlen +eval",
        keys[0], keys[1], keys[2]
    );
    let name = kubernetes_name(&format!("redstart-{topic}-{group}"));
    let deployment = match &args.deployment {
        Some(deployment) => deployment.clone(),
        None => kubernetes_name(group),
    };
    let values = [
        ("TOPIC", topic),
        ("GROUP", group),
        ("ADDRESS", &args.address),
        ("DEPLOYMENT", &deployment),
        ("NAME", &name),
        ("LOG", &keys[0]),
        ("REDELIVERY", &keys[1]),
        ("RETRIES", &keys[2]),
        ("ACL", &acl),
    ];
    let template = include_str!("../../../../docs/ops/keda.yaml");
    (format!("{name}.yaml"), fill(template, &values))
}

/// A text as a name in Kubernetes: lower case, digits and `-`, 63 characters at most.
fn kubernetes_name(text: &str) -> String {
    let known = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let name: String = text.chars().map(known).take(63).collect();
    match name.trim_matches('-') {
        "" => "redstart".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_form_for_kubernetes() {
        for (text, name) in [
            (
                "redstart-orders.eu-Billing_2",
                "redstart-orders-eu-billing-2",
            ),
            ("_:.", "redstart"),
            (".billing.", "billing"),
        ] {
            assert_eq!(kubernetes_name(text), name);
        }
        assert_eq!(kubernetes_name(&"a".repeat(200)).len(), 63);
    }
}
