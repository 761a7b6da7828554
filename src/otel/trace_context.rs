//! The headers `traceparent` and `tracestate`, as W3C Trace Context defines them.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The length of a header of version 00.
const LENGTH: usize = 55;

/// Writes a span into headers; nothing for a span without a trace.
pub(super) fn write(span: &SpanContext, headers: &mut BTreeMap<String, String>) {
    if !span.is_valid() {
        return;
    }
    let sampled = span.trace_flags() & TraceFlags::SAMPLED;
    let parent = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        sampled.to_u8()
    );
    headers.insert(PARENT.to_owned(), parent);
    let state = span.trace_state().header();
    if !state.is_empty() {
        headers.insert(STATE.to_owned(), state);
    }
}

/// Reads the span from headers; `None` where the header is missing or breaks a rule.
pub(super) fn read(headers: &BTreeMap<String, String>) -> Option<SpanContext> {
    let header = headers.get(PARENT)?;
    let version = header.get(..2)?;
    // A later version may have further fields, behind another dash.
    let rest = header.get(LENGTH..)?;
    let known = version == "00" && rest.is_empty();
    let later = version != "00" && (rest.is_empty() || rest.starts_with('-'));
    if version == "ff" || !(known || later) {
        return None;
    }
    let mut fields = header.get(..LENGTH)?.split('-');
    let mut field = |length| fields.next().filter(|field| is_hex(field, length));
    field(2)?;
    let trace = TraceId::from_hex(field(32)?).ok()?;
    let span = SpanId::from_hex(field(16)?).ok()?;
    let flags = u8::from_str_radix(field(2)?, 16).ok()?;
    // A state that breaks a rule does not make the parent invalid.
    let state = headers.get(STATE).map(|state| TraceState::from_str(state));
    let state = state.and_then(Result::ok).unwrap_or_default();
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let found = SpanContext::new(trace, span, flags, true, state);
    found.is_valid().then_some(found)
}

fn is_hex(field: &str, length: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    field.len() == length && field.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(parent: &str, state: Option<&str>) -> BTreeMap<String, String> {
        let state = state.map(|state| (STATE.to_owned(), state.to_owned()));
        let parent = (PARENT.to_owned(), parent.to_owned());
        [parent].into_iter().chain(state).collect()
    }

    #[test]
    fn a_span_that_was_written_is_read_as_it_was() {
        for flags in ["00", "01"] {
            let written = headers(&format!("00-{TRACE}-{SPAN}-{flags}"), Some("vendor=1"));
            let span = read(&written).unwrap();
            assert!(span.is_remote());
            assert_eq!(span.trace_id().to_string(), TRACE);
            assert_eq!(span.span_id().to_string(), SPAN);
            assert_eq!(span.is_sampled(), flags == "01");
            let mut again = BTreeMap::new();
            write(&span, &mut again);
            assert_eq!(again, written);
        }
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_no_parent() {
        for parent in [
            String::new(),
            "00-1-2-01".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("01-{TRACE}-{SPAN}-01more"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-é{}-01", "0".repeat(14)),
        ] {
            assert_eq!(read(&headers(&parent, None)), None, "{parent}");
        }
        assert_eq!(read(&BTreeMap::new()), None);
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let span = read(&headers(&format!("01-{TRACE}-{SPAN}-01-more"), None)).unwrap();
        assert_eq!(span.trace_id().to_string(), TRACE);
    }

    #[test]
    fn a_bad_state_is_dropped_and_the_parent_kept() {
        let with = headers(&format!("00-{TRACE}-{SPAN}-01"), Some("no state"));
        assert_eq!(read(&with).unwrap().trace_state().header(), "");
    }

    #[test]
    fn no_header_is_written_outside_of_a_trace() {
        let mut headers = BTreeMap::new();
        write(&SpanContext::empty_context(), &mut headers);
        assert!(headers.is_empty());
    }
}
