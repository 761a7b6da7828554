//! Users of a file: who they are, and whether a password or a token is theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::Access;
use super::attempts::Attempts;
use crate::domain::{Error, ErrorKind};

/// How many verified passwords the console remembers.
const REMEMBERED: usize = 256;

/// How many passwords are hashed at once: each takes 19 MiB and tens of milliseconds.
const AT_ONCE: usize = 2;

/// Checked for names that do not exist, so that they take as long as those that do.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_password("nobody").unwrap_or_default());

/// A password's hash, for a line of a users file. The salt is random.
///
/// # Errors
///
/// [`Invalid`](ErrorKind::Invalid) for an empty password, or one of more than 1,024 bytes.
pub fn hash_password(password: &str) -> Result<String, Error> {
    if password.is_empty() || password.len() > MAX_PASSWORD {
        let rule = "must have between 1 and 1,024 bytes";
        return Err(Error::new(ErrorKind::Invalid, "password", rule));
    }
    let failed = |error: argon2::password_hash::Error| {
        Error::new(ErrorKind::Encode, "password", "cannot be hashed").because(error.to_string())
    };
    // Version 4 is random.
    let salt = SaltString::encode_b64(Uuid::new_v4().as_bytes()).map_err(failed)?;
    let hash = hasher()
        .hash_password(password.as_bytes(), &salt)
        .map_err(failed)?;
    Ok(hash.to_string())
}

const MAX_PASSWORD: usize = 1024;

/// Argon2id with 19 MiB and two passes, as OWASP recommends.
fn hasher() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    Operator,
    Viewer,
}

impl Role {
    fn access(self, name: &str) -> Access {
        match self {
            Self::Operator => Access::Operator(name.to_owned()),
            Self::Viewer => Access::Viewer(name.to_owned()),
        }
    }
}

/// The users of a file.
pub(super) struct Users {
    by_password: HashMap<String, (Role, String)>,
    tokens: Vec<(String, Role, [u8; 32])>,
    /// Keyed hashes of pairs that were verified: a browser sends the password with every request.
    verified: Mutex<HashMap<[u8; 32], String>>,
    key: [u8; 32],
    hashing: tokio::sync::Semaphore,
}

impl Users {
    /// Reads lines `name:role:hash` and `name:role:bearer:sha256`, with roles `operator` and `viewer`.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut users = Self {
            by_password: HashMap::new(),
            tokens: Vec::new(),
            verified: Mutex::default(),
            key: random_key(),
            hashing: tokio::sync::Semaphore::new(AT_ONCE),
        };
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line may hold a hash: the error names its number only.
            let wrong = |rule: &str| {
                Err(Error::new(ErrorKind::Invalid, "users file", rule)
                    .on(format!("line {}", at + 1)))
            };
            let mut parts = line.splitn(3, ':');
            let (Some(name), Some(role), Some(secret)) = (parts.next(), parts.next(), parts.next())
            else {
                return wrong(
                    "must be name:role:hash, as `redstart console hash-password` prints it",
                );
            };
            if name.is_empty() || name.len() > 100 {
                return wrong("the name must have between 1 and 100 bytes");
            }
            let role = match role {
                "operator" => Role::Operator,
                "viewer" => Role::Viewer,
                _ => return wrong("the role must be operator or viewer"),
            };
            if let Some(hash) = secret.strip_prefix("bearer:") {
                let Some(hash) = digest(hash) else {
                    return wrong("the token must be its SHA-256 in 64 hexadecimal digits");
                };
                users.tokens.push((name.to_owned(), role, hash));
                continue;
            }
            let is_argon = PasswordHash::new(secret)
                .is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2"));
            if !is_argon {
                return wrong(
                    "the hash must be one of Argon2, as `redstart console hash-password` prints it",
                );
            }
            let known = users
                .by_password
                .insert(name.to_owned(), (role, secret.to_owned()));
            if known.is_some() {
                return wrong("another line has the same name");
            }
        }
        if users.by_password.is_empty() && users.tokens.is_empty() {
            let rule = "has no users; add a line that `redstart console hash-password` prints";
            return Err(Error::new(ErrorKind::Invalid, "users file", rule));
        }
        Ok(users)
    }

    /// Whose password it is, where it was verified before.
    fn remembered(&self, name: &str, pair: &[u8; 32]) -> Option<Access> {
        let (role, _) = self.by_password.get(name)?;
        self.is_verified(pair, name).then(|| role.access(name))
    }

    /// Whose password it is. `None` for a wrong one. `attempts` counts the passwords that the console
    /// does not know yet; the error is the time to wait before the next one.
    pub(super) async fn of_password(
        &self,
        name: &str,
        password: &str,
        attempts: &Attempts,
        peer: IpAddr,
    ) -> Result<Option<Access>, Duration> {
        let pair = self.keyed(name, password);
        if let Some(access) = self.remembered(name, &pair) {
            return Ok(Some(access));
        }
        let Ok(permit) = self.hashing.acquire().await else {
            return Ok(None);
        };
        // A browser sends several requests at once after a log-in: the first one verifies for all.
        if let Some(access) = self.remembered(name, &pair) {
            return Ok(Some(access));
        }
        let attempt = attempts.begin(peer, Instant::now())?;
        if password.len() > MAX_PASSWORD {
            return Ok(None);
        }
        let known = self.by_password.get(name);
        let hash = known.map_or_else(|| NOBODY.clone(), |(_, hash)| hash.clone());
        let password = password.to_owned();
        let is_right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            })
        });
        let is_right = is_right.await.unwrap_or(false);
        drop(permit);
        let Some((role, _)) = known.filter(|_| is_right) else {
            return Ok(None);
        };
        attempts.forgive(attempt);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(pair, name.to_owned());
        Ok(Some(role.access(name)))
    }

    fn is_verified(&self, pair: &[u8; 32], name: &str) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(pair).is_some_and(|known| known == name)
    }

    /// Whose token it is.
    pub(super) fn of_token(&self, token: &str) -> Option<Access> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        // Compares with each, so that the time tells nothing about which one it was.
        for (name, role, known) in &self.tokens {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(role.access(name));
            }
        }
        found
    }

    fn keyed(&self, name: &str, password: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update(password);
        hash.finalize().into()
    }
}

fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    key[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    key
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_and_tokens_belong_to_their_users() {
        let (ann, bob) = (
            hash_password("a secret").unwrap(),
            hash_password("other").unwrap(),
        );
        let token: [u8; 32] = Sha256::digest(b"t0ken").into();
        let token = crate::operate::hex::word(&token);
        let file =
            format!("# ours\nann:operator:{ann}\n\nbob:viewer:{bob}\nkeda:viewer:bearer:{token}\n");
        let users = Users::parse(&file).unwrap();
        let operator = Some(Access::Operator("ann".into()));
        let attempts = Attempts::default();
        let peer = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let of = async |name, password| users.of_password(name, password, &attempts, peer).await;
        // The second time comes from memory.
        for _ in 0..2 {
            assert_eq!(of("ann", "a secret").await, Ok(operator.clone()));
        }
        let viewer = Some(Access::Viewer("bob".into()));
        assert_eq!(of("bob", "other").await, Ok(viewer));
        for (name, password) in [
            ("ann", "other"),
            ("bob", "a secret"),
            ("eve", "nobody"),
            ("keda", "t0ken"),
        ] {
            assert_eq!(of(name, password).await, Ok(None), "{name}");
        }
        assert_eq!(users.of_token("t0ken"), Some(Access::Viewer("keda".into())));
        assert_eq!(users.of_token("token"), None);
    }

    #[test]
    fn a_wrong_line_is_named_and_never_shown() {
        let hash = hash_password("p").unwrap();
        for (file, word) in [
            (String::new(), "no users"),
            ("ann".into(), "line 1"),
            (format!("ann:admin:{hash}"), "operator or viewer"),
            ("ann:operator:canary".into(), "Argon2"),
            ("a:viewer:bearer:canary".into(), "64 hexadecimal"),
            (format!("ann:operator:{hash}\nann:viewer:{hash}"), "line 2"),
        ] {
            let told = Users::parse(&file).err().unwrap().to_string();
            assert!(told.contains(word), "{told}");
            assert!(!told.contains("canary"), "{told}");
        }
        assert!(hash_password("").is_err());
    }
}
