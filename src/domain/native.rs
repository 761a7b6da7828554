//! Commands that only newer servers have.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::error::{Error, ErrorKind};

/// A command, or an option of one, that only newer servers have and that Redstart can use.
///
/// The page [servers](crate::docs::servers) says what each does and what it costs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NativeCommand {
    /// `XADD … IDMP`, since Redis 8.6: the server adds a message that is sent twice only once. A publish
    /// whose connection breaks after sending is then sent again, and its outcome is known.
    XaddIdmp,
}

impl NativeCommand {
    /// All of them.
    pub const ALL: &[Self] = &[Self::XaddIdmp];

    /// The name in settings: `xadd-idmp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::XaddIdmp => "xadd-idmp",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for NativeCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for NativeCommand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of native commands. By default it is empty.
///
/// ```
/// use redstart::container::{NativeCommand, NativeCommands};
///
/// let chosen: NativeCommands = "xadd-idmp".parse()?;
/// assert!(chosen.contains(NativeCommand::XaddIdmp));
/// assert_eq!(NativeCommands::none().to_string(), "none");
/// # Ok::<(), redstart::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NativeCommands(u8);

impl NativeCommands {
    /// The empty set.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// Every native command that this version of Redstart can use.
    #[must_use]
    pub fn all() -> Self {
        NativeCommand::ALL.iter().copied().collect()
    }

    /// Adds a command.
    #[must_use]
    pub const fn with(self, command: NativeCommand) -> Self {
        Self(self.0 | command.bit())
    }

    /// Whether the set has a command.
    #[must_use]
    pub const fn contains(self, command: NativeCommand) -> bool {
        self.0 & command.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl From<NativeCommand> for NativeCommands {
    fn from(command: NativeCommand) -> Self {
        Self::none().with(command)
    }
}

impl FromIterator<NativeCommand> for NativeCommands {
    fn from_iter<I: IntoIterator<Item = NativeCommand>>(commands: I) -> Self {
        commands.into_iter().fold(Self::none(), Self::with)
    }
}

impl Serialize for NativeCommands {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all = NativeCommand::ALL.iter();
        serializer.collect_seq(all.filter(|one| self.contains(**one)))
    }
}

/// `none`, or the names with commas between them.
impl fmt::Display for NativeCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = NativeCommand::ALL
            .iter()
            .filter(|one| self.contains(**one))
            .map(|one| one.as_str());
        f.write_str(names.next().unwrap_or("none"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

/// Parses `none`, `all`, or names with commas between them.
impl FromStr for NativeCommands {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim() {
            "none" => return Ok(Self::none()),
            "all" => return Ok(Self::all()),
            _ => {}
        }
        let named = |name: &str| {
            let known = NativeCommand::ALL.iter().find(|one| one.as_str() == name);
            known.copied().ok_or_else(|| unknown(name))
        };
        text.split(',').map(|name| named(name.trim())).collect()
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = NativeCommand::ALL.iter().map(|one| one.as_str()).collect();
    let rule = format!(
        "{name:?} is not the name of a native command; use none, all, or names with commas between \
         them: {}",
        names.join(", ")
    );
    Error::new(ErrorKind::Invalid, "native commands", rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_parsed_from_what_it_shows() {
        for set in [NativeCommands::none(), NativeCommands::all()] {
            assert_eq!(set.to_string().parse::<NativeCommands>().unwrap(), set);
        }
        let all: NativeCommands = "all".parse().unwrap();
        assert_eq!(all, NativeCommands::all());
        assert!(all.contains(NativeCommand::XaddIdmp) && !all.is_empty());
        assert!(!NativeCommands::none().contains(NativeCommand::XaddIdmp));
        let spaced: NativeCommands = " xadd-idmp , xadd-idmp".parse().unwrap();
        assert_eq!(spaced, NativeCommand::XaddIdmp.into());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for text in ["xack-del", "", "xadd-idmp,", "none,xadd-idmp"] {
            let error = text.parse::<NativeCommands>().unwrap_err().to_string();
            assert!(
                error.contains("all, or names") && error.contains("xadd-idmp"),
                "{error}"
            );
        }
    }
}
