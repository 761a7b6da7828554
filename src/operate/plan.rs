//! Plans: operations that an operator previews, confirms and runs.

use serde::Serialize;

use crate::domain::{Error, ErrorKind};

/// An operation with a preview of what it will do. It changes nothing until it is confirmed and
/// run.
///
/// As JSON it has the fields of the preview, and `confirmation`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[must_use = "a plan changes nothing until it is confirmed and run"]
pub struct Plan<T> {
    #[serde(flatten)]
    preview: T,
    confirmation: Option<String>,
}

impl<T> Plan<T> {
    /// A plan that an operator confirms by typing a word, where one is given.
    pub(crate) fn new(preview: T, confirmation: Option<String>) -> Self {
        Self {
            preview,
            confirmation,
        }
    }

    /// What the operation will do.
    pub fn preview(&self) -> &T {
        &self.preview
    }

    /// The word that an operator types to confirm: a count or a name. `None` for an operation
    /// that destroys nothing.
    #[must_use]
    pub fn confirmation(&self) -> Option<&str> {
        self.confirmation.as_deref()
    }

    /// Confirms the plan with the word that the operator typed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the operator typed another word.
    pub fn confirm(self, typed: &str) -> Result<Confirmed<T>, Error> {
        match &self.confirmation {
            Some(word) if word != typed.trim() => {
                let rule = format!("expected {word:?}; nothing was changed");
                Err(Error::new(ErrorKind::Refused, "confirmation", rule))
            }
            _ => Ok(self.confirm_unasked()),
        }
    }

    /// Confirms the plan without asking anybody.
    pub fn confirm_unasked(self) -> Confirmed<T> {
        Confirmed(self.preview)
    }
}

/// A confirmed plan, ready to run once.
#[derive(Debug)]
#[must_use = "a confirmed plan changes nothing until it runs"]
pub struct Confirmed<T>(T);

impl<T> Confirmed<T> {
    pub(crate) fn into_plan(self) -> T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_word_confirms() {
        let plan = || Plan::new("remove", Some("12".to_owned()));
        let error = plan().confirm("all").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("\"12\""), "{error}");
        assert_eq!(plan().confirm(" 12\n").unwrap().into_plan(), "remove");
        assert_eq!(plan().confirm_unasked().into_plan(), "remove");
    }

    #[test]
    fn a_plan_without_a_word_needs_none() {
        let plan = Plan::new("redrive", None);
        assert_eq!(plan.confirmation(), None);
        assert_eq!(plan.confirm("").unwrap().into_plan(), "redrive");
    }
}
