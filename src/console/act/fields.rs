//! The fields of a form. A name may occur several times.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::{Form, FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use crate::console::failure::Failure;
use crate::domain::parse_duration;

/// The fields of a form, in their order.
#[derive(Clone, Debug, Default)]
pub(in crate::console) struct FormFields(pub(in crate::console) Vec<(String, String)>);

impl FormFields {
    /// Refuses a form that says two things of one field: only ids may repeat.
    fn checked(fields: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut seen = HashSet::new();
        let twice = fields
            .iter()
            .map(|(name, _)| name.as_str())
            .find(|name| *name != "id" && !seen.insert(*name));
        match twice {
            Some(name) => {
                let rule = format!("the form has the field {name:?} twice");
                Err(Failure::invalid(rule))
            }
            None => Ok(Self(fields)),
        }
    }

    /// The value of a field, the first of several; empty where the form has none.
    pub(in crate::console) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// All values of a field.
    pub(in crate::console) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.0.iter().filter(move |(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads the body of a POST, or the query of a GET.
impl<S: Send + Sync> FromRequest<S> for FormFields {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Form::<Vec<(String, String)>>::from_request(request, state).await {
            Ok(Form(fields)) => Self::checked(fields),
            Err(rejection) => {
                let status = rejection.status();
                let rule = match status.as_u16() {
                    413 => "the form is longer than 2 MiB",
                    415 => "a form has the content type application/x-www-form-urlencoded",
                    _ => "the form cannot be read",
                };
                Err(Failure::new(status, rule))
            }
        }
    }
}

/// Answers a change: the browser asks for the page, and a reload repeats nothing.
pub(in crate::console) fn see_other(address: &str) -> Response {
    // Addresses of the console are encoded, and so valid in a header.
    match HeaderValue::from_str(address) {
        Ok(address) => (StatusCode::SEE_OTHER, [(LOCATION, address)]).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A time such as `30s`, of the field with a name.
pub(in crate::console) fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let rule = || format!("{name}: must be a time such as 30s, 5m or 2h, without a sign");
    parse_duration(text).ok_or_else(rule)
}

/// A count as people type it: `48,211`.
pub(in crate::console) fn typed(text: &str) -> String {
    let kept = text
        .chars()
        .filter(|c| !matches!(c, ',' | ' ' | '\u{a0}' | '_' | '\''));
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_count_may_have_separators() {
        for text in ["48211", "48,211", " 48 211 ", "48'211"] {
            assert_eq!(typed(text), "48211", "{text}");
        }
        assert_eq!(typed("billing"), "billing");
    }
}
