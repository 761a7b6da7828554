//! Who may see and change what.

mod attempts;
mod login;
pub(super) mod origin;
mod proxy;
mod users;

pub(super) use login::CHALLENGE;
pub use login::Login;
pub use proxy::ProxyLogin;
pub use users::hash_password;

/// What a visitor may do.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Access {
    /// Sees everything and changes it. The journal has the name.
    Operator(String),
    /// Sees everything and changes nothing. The pages show the name.
    Viewer(String),
    /// Sees nothing: the console answers 403.
    Forbidden,
}

impl Access {
    /// The visitor's name; empty where nobody logs in.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Operator(name) | Self::Viewer(name) => name,
            Self::Forbidden => "",
        }
    }

    pub(super) fn is_operator(&self) -> bool {
        matches!(self, Self::Operator(_))
    }
}
