//! Where the keys of a namespace lie in a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::error::{Error, ErrorKind};
use super::names::Namespace;

/// Where the keys of a namespace lie in a cluster. The container that sets the namespace up fixes it.
///
/// As text: `spread`, `together`. The guide [cluster](crate::docs::cluster) says when to choose which.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Placement {
    /// Each topic and each value has a slot of its own; the default. Topics share the load of all
    /// primaries. In a cluster the effects of one commit stay within one topic.
    #[default]
    Spread,
    /// All keys have one slot, on one primary. The effects of one commit reach every topic and every
    /// value of the namespace, in a cluster too.
    Together,
}

impl Placement {
    /// The placement in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Together => "together",
        }
    }

    /// Refuses a placement that a namespace without a name cannot have: `{}` tags nothing.
    pub(crate) fn check(wanted: Option<Self>, namespace: Option<&Namespace>) -> Result<(), Error> {
        if wanted == Some(Self::Together) && namespace.is_none() {
            let rule = "placement together needs a namespace: its name is the hash tag of all keys";
            return Err(Error::new(ErrorKind::Invalid, "setup", rule));
        }
        Ok(())
    }

    /// Refuses a container that asks for another placement than the namespace has.
    pub(crate) fn agree(
        self,
        wanted: Option<Self>,
        namespace: Option<&Namespace>,
    ) -> Result<(), Error> {
        let Some(other) = wanted.filter(|wanted| *wanted != self) else {
            return Ok(());
        };
        let name = namespace.map_or("", Namespace::as_str);
        let rule = format!(
            "namespace {name:?} was set up with placement {self}, not {other}; choose another \
             namespace or leave the placement out"
        );
        Err(Error::new(ErrorKind::Invalid, "setup", rule))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses [`as_str`](Placement::as_str).
impl FromStr for Placement {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "spread" => Ok(Self::Spread),
            "together" => Ok(Self::Together),
            _ => {
                let shown: String = name.chars().take(64).collect();
                let rule = "must be spread or together";
                Err(Error::new(ErrorKind::Invalid, "placement", rule).on(shown))
            }
        }
    }
}

/// As [`as_str`](Placement::as_str).
impl Serialize for Placement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_others_are_refused() {
        for placement in [Placement::Spread, Placement::Together] {
            assert_eq!(
                placement.to_string().parse::<Placement>().unwrap(),
                placement
            );
        }
        let error = "apart".parse::<Placement>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn only_the_other_placement_is_refused() {
        let shop = Namespace::new("shop").unwrap();
        let agree = |wanted| Placement::Spread.agree(wanted, Some(&shop));
        agree(None).unwrap();
        agree(Some(Placement::Spread)).unwrap();
        let error = agree(Some(Placement::Together)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(
            error.to_string(),
            "setup: namespace \"shop\" was set up with placement spread, not together; choose \
             another namespace or leave the placement out"
        );
    }

    #[test]
    fn together_needs_a_namespace() {
        let shop = Namespace::new("shop").unwrap();
        let together = Some(Placement::Together);
        Placement::check(together, Some(&shop)).unwrap();
        Placement::check(Some(Placement::Spread), None).unwrap();
        assert!(Placement::check(together, None).is_err());
    }
}
