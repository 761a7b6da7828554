//! The metadata of a message, as variables of a command's environment or as headers of a request.

use redstart::{Delivery, Envelope};

/// A field's name and value.
type Field = (&'static str, String);

/// The fields of a delivery by the names that headers have, or the rule that one breaks.
pub(super) fn fields(delivery: &Delivery) -> Result<Vec<Field>, String> {
    let mut all = of_envelope(delivery.envelope())?;
    all.extend([
        ("topic", delivery.topic().to_string()),
        ("group", delivery.group().to_string()),
        ("attempt", delivery.attempt().to_string()),
    ]);
    Ok(all)
}

/// The variables of a delivery, or the rule that one breaks.
pub(super) fn variables(delivery: &Delivery) -> Result<Vec<(String, String)>, String> {
    let all = fields(delivery)?.into_iter();
    let mut all: Vec<(String, String)> = all.map(|(name, value)| (variable(name), value)).collect();
    if let Some(trace) = delivery.envelope().headers().get("traceparent") {
        all.push((TRACE.to_owned(), trace.clone()));
    }
    match all.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(format!("{name} would hold a NUL, which no environment can")),
        None => Ok(all),
    }
}

/// The variables that a message may lack: a command must not see those of the worker's own
/// environment.
pub(super) fn optional_variables() -> impl Iterator<Item = String> {
    let optional = OPTIONAL.into_iter().map(variable);
    optional.chain([TRACE.to_owned()])
}

/// The variable by which OpenTelemetry hands a trace to a process.
const TRACE: &str = "TRACEPARENT";

const OPTIONAL: [&str; 4] = [
    "message-corr-id",
    "message-tenant-id",
    "message-key",
    "message-headers",
];

fn variable(name: &str) -> String {
    format!("REDSTART_{}", name.to_uppercase().replace('-', "_"))
}

fn of_envelope(envelope: &Envelope) -> Result<Vec<Field>, String> {
    let mut all = vec![
        ("message-id", envelope.id().to_string()),
        ("message-type", envelope.message_type().to_owned()),
        ("message-ts", envelope.created_at().to_string()),
    ];
    let headers = match envelope.headers() {
        none if none.is_empty() => None,
        some => {
            let json = serde_json::to_string(some);
            Some(json.map_err(|error| format!("the headers have no JSON form: {error}"))?)
        }
    };
    let values = [
        envelope.correlation().map(str::to_owned),
        envelope.tenant().map(str::to_owned),
        envelope.key().map(str::to_owned),
        headers,
    ];
    let present = OPTIONAL.into_iter().zip(values);
    all.extend(present.filter_map(|(name, value)| Some((name, value?))));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_lacks_is_left_out() {
        let names = |envelope: &Envelope| -> Vec<&'static str> {
            let all = of_envelope(envelope).unwrap();
            all.iter().map(|(name, _)| *name).collect()
        };
        let plain = Envelope::new("order.placed", &1).unwrap();
        let always = [
            "message-id",
            "message-type",
            "message-ts",
            "message-corr-id",
        ];
        assert_eq!(names(&plain), always);
        let full = plain
            .with_key("order-7")
            .with_tenant("acme")
            .with_header("traceparent", "00-1-2-01");
        assert!(OPTIONAL.iter().all(|name| names(&full).contains(name)));
        let found = of_envelope(&full).unwrap();
        let headers = found.iter().find(|(name, _)| *name == "message-headers");
        assert_eq!(headers.unwrap().1, r#"{"traceparent":"00-1-2-01"}"#);
    }

    #[test]
    fn a_variable_has_the_name_of_the_header() {
        assert_eq!(variable("message-corr-id"), "REDSTART_MESSAGE_CORR_ID");
        assert_eq!(optional_variables().count(), 5);
    }
}
