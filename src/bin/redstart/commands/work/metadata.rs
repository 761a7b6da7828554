//! The metadata of a message as variables of a command's environment.

use redstart::{Delivery, Envelope};

/// The variables of a delivery, or the rule that one breaks.
pub(super) fn variables(delivery: &Delivery) -> Result<Vec<(&'static str, String)>, String> {
    let mut all = of_envelope(delivery.envelope())?;
    all.extend([
        ("REDSTART_TOPIC", delivery.topic().to_string()),
        ("REDSTART_GROUP", delivery.group().to_string()),
        ("REDSTART_ATTEMPT", delivery.attempt().to_string()),
    ]);
    match all.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(format!("{name} would hold a NUL, which no environment can")),
        None => Ok(all),
    }
}

fn of_envelope(envelope: &Envelope) -> Result<Vec<(&'static str, String)>, String> {
    let mut all = vec![
        ("REDSTART_MESSAGE_ID", envelope.id().to_string()),
        ("REDSTART_MESSAGE_TYPE", envelope.message_type().to_owned()),
        ("REDSTART_MESSAGE_TS", envelope.created_at().to_string()),
    ];
    let optional = [
        ("REDSTART_MESSAGE_CORR_ID", envelope.correlation()),
        ("REDSTART_MESSAGE_TENANT_ID", envelope.tenant()),
        ("REDSTART_MESSAGE_KEY", envelope.key()),
        (
            "TRACEPARENT",
            envelope.headers().get("traceparent").map(String::as_str),
        ),
    ];
    let present = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.to_owned())));
    all.extend(present);
    if !envelope.headers().is_empty() {
        let headers = serde_json::to_string(envelope.headers());
        let headers = headers.map_err(|error| format!("the headers have no JSON form: {error}"))?;
        all.push(("REDSTART_MESSAGE_HEADERS", headers));
    }
    Ok(all)
}

/// The variables that a message may lack: a command must not see those of the worker's own
/// environment.
pub(super) const OPTIONAL: [&str; 5] = [
    "REDSTART_MESSAGE_CORR_ID",
    "REDSTART_MESSAGE_TENANT_ID",
    "REDSTART_MESSAGE_KEY",
    "REDSTART_MESSAGE_HEADERS",
    "TRACEPARENT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_lacks_is_left_out() {
        let plain = Envelope::new("order.placed", &1).unwrap();
        let names = |all: &[(&'static str, String)]| -> Vec<&'static str> {
            all.iter().map(|(name, _)| *name).collect()
        };
        let found = of_envelope(&plain).unwrap();
        let present =
            ["ID", "TYPE", "TS", "CORR_ID"].map(|part| format!("REDSTART_MESSAGE_{part}"));
        assert_eq!(names(&found), present);
        let full = plain
            .with_key("order-7")
            .with_tenant("acme")
            .with_header("traceparent", "00-1-2-01");
        let found = of_envelope(&full).unwrap();
        assert!(OPTIONAL.iter().all(|name| names(&found).contains(name)));
        let headers = found
            .iter()
            .find(|(name, _)| *name == "REDSTART_MESSAGE_HEADERS");
        assert_eq!(headers.unwrap().1, r#"{"traceparent":"00-1-2-01"}"#);
    }
}
