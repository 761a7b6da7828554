//! CloudEvents in a field with any name.

use super::ForeignEntry;
use super::text::members;
use crate::domain::Envelope;
use crate::wire::cloud_event;

/// Reads a CloudEvent, as JSON in structured mode, in a field with any name.
///
/// Redstart reads one in the field `cloudevents` without this reader. The page
/// [wire format](crate::docs::wire_format) shows how attributes map to an envelope. The first field
/// that holds a JSON object with `specversion` counts; an event that breaks a rule is dead-lettered
/// with the rule.
pub fn cloud_events()
-> impl Fn(&ForeignEntry<'_>) -> Result<Option<Envelope>, String> + Send + Sync + 'static {
    |entry| {
        let is_event = |value: &&str| {
            let members = members(value);
            members.is_some_and(|members| members.contains_key("specversion"))
        };
        let texts = entry.fields().map(|(_, value)| value);
        let mut texts = texts.filter_map(|value| std::str::from_utf8(value).ok());
        let Some(event) = texts.find(is_event) else {
            return Ok(None);
        };
        let draft = cloud_event::decode(event.as_bytes())?;
        draft
            .complete(|| entry.message_id(), entry.appended())
            .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::foreign::tests::decode;

    #[test]
    fn an_event_is_found_in_a_field_with_any_name() {
        let event = r#"{"specversion":"1.0","id":"7","source":"/shop","type":"t","data":1}"#;
        for fields in [
            [("json", event), ("b", "")],
            [("a", "{}"), ("event", event)],
        ] {
            let read = decode(cloud_events(), &fields).unwrap();
            assert_eq!(read.message_type(), "t");
            assert_eq!(read.headers()["ce-source"], "/shop");
            let native = decode(|_: &ForeignEntry<'_>| None, &[("cloudevents", event)]);
            assert_eq!(native.unwrap().id(), read.id());
        }
    }

    #[test]
    fn another_version_is_refused_by_its_name_and_another_entry_is_not_read() {
        let event = r#"{"specversion":"0.3","id":"7","source":"/shop","type":"t"}"#;
        let rule = decode(cloud_events(), &[("event", event)]).unwrap_err();
        assert!(rule.contains("specversion \"0.3\""), "{rule}");
        let rule = decode(cloud_events(), &[("event", "{}")]).unwrap_err();
        assert!(rule.starts_with("no field named"), "{rule}");
    }
}
