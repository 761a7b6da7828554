//! TLS: whom the server must prove to be, and which certificate the client shows.
//!
//! All cryptography comes from `rustls` with its `ring` provider. This file chooses the provider for
//! its own connections and not for the process, so that it does not depend on other crates' choice.

use std::fmt;
use std::path::PathBuf;

use crate::domain::{Error, ErrorKind};

#[cfg(feature = "tls")]
pub(in crate::adapters::redis) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(in crate::adapters::redis) use without::Tls;

/// Certificates for connections of a `rediss://` URL. The files are in PEM form. They are read when
/// the container is made, and again when a connection has failed: files that were replaced on disk
/// need no restart.
///
/// A connection always checks the server's certificate, its names and times included. No setting
/// turns that off.
#[derive(Clone, Default, Eq, PartialEq)]
#[must_use]
pub struct TlsSettings {
    ca: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("ca", &self.ca)
            .field("client", &self.client)
            .finish()
    }
}

impl TlsSettings {
    /// Trusts the authorities that the machine trusts, and shows no client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only the authorities in this file. The default is those of the machine.
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Shows the server this certificate when it asks for one (mutual TLS). The default is none. The
    /// first file contains the certificate and the chain to its authority, the second its private
    /// key.
    pub fn with_client_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client = Some((certificate.into(), key.into()));
        self
    }

    pub(in crate::adapters::redis) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }
}

fn invalid(rule: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "TLS settings", rule)
}

#[cfg(not(feature = "tls"))]
mod without {
    use std::convert::Infallible;

    use tokio::net::TcpStream;

    use super::{TlsSettings, invalid};
    use crate::adapters::redis::net::error::NoConnection;
    use crate::domain::Error;

    /// TLS without the feature `tls`: it has no value.
    #[derive(Clone, Debug)]
    pub(in crate::adapters::redis) struct Tls(Infallible);

    impl Tls {
        pub(in crate::adapters::redis) fn new(_: &TlsSettings) -> Result<Self, Error> {
            Err(invalid("a rediss:// URL needs redstart's feature `tls`"))
        }

        pub(in crate::adapters::redis) async fn over(
            &self,
            _: &str,
            _: TcpStream,
        ) -> Result<TcpStream, NoConnection> {
            match self.0 {}
        }

        pub(in crate::adapters::redis) fn has_changed(&self) -> bool {
            match self.0 {}
        }
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    use std::io::ErrorKind::{TimedOut, UnexpectedEof};
    use std::path::Path;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};

    use super::{TlsSettings, invalid};
    use crate::adapters::redis::net::error::{NoConnection, Step};
    use crate::api::supervise::log;
    use crate::domain::Error;

    /// How long the server may take for the handshake.
    const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

    /// Makes TLS connections. Clones share what was read from the files.
    #[derive(Clone)]
    pub(in crate::adapters::redis) struct Tls {
        settings: TlsSettings,
        loaded: Arc<Mutex<Loaded>>,
    }

    struct Loaded {
        connector: TlsConnector,
        /// Tells the files from changed ones.
        fingerprint: Option<u64>,
    }

    /// A hash of all files; `None` when one cannot be read.
    fn fingerprint(settings: &TlsSettings) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let client = settings.client.iter().flat_map(|(chain, key)| [chain, key]);
        for path in settings.ca.iter().chain(client) {
            std::fs::read(path).ok()?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    impl std::fmt::Debug for Tls {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            // The configuration holds the private key.
            f.debug_struct("Tls").finish_non_exhaustive()
        }
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let found =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|e| unreadable(path, "certificates").because(e))?;
        if found.is_empty() {
            return Err(unreadable(path, "certificates"));
        }
        Ok(found)
    }

    fn unreadable(path: &Path, what: &str) -> Error {
        invalid(format!("cannot read {what} in PEM form")).on(path.display().to_string())
    }

    /// Whether the server probably does not speak TLS: it answered something else, or nothing.
    fn is_plain_text(cause: &std::io::Error) -> bool {
        if matches!(cause.kind(), TimedOut | UnexpectedEof) {
            return true;
        }
        let inner = cause.get_ref().and_then(|inner| inner.downcast_ref());
        matches!(inner, Some(rustls::Error::InvalidMessage(_)))
    }

    fn load(settings: &TlsSettings) -> Result<TlsConnector, Error> {
        let mut roots = RootCertStore::empty();
        match &settings.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    let added = roots.add(certificate);
                    added.map_err(|e| unreadable(path, "certificates").because(e))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(invalid("this machine trusts no authority; name a CA file"));
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| invalid("no TLS version is supported").because(e))?
            .with_root_certificates(roots);
        let config = match &settings.client {
            None => config.with_no_client_auth(),
            Some((chain, key_path)) => {
                let key = PrivateKeyDer::from_pem_file(key_path)
                    // Leave the cause out: it may quote the private key.
                    .map_err(|_| unreadable(key_path, "a private key"))?;
                let paired = config.with_client_auth_cert(certificates(chain)?, key);
                let rule = "the client's certificate and its private key do not match";
                paired.map_err(|e| invalid(rule).because(e))?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    impl Tls {
        pub(in crate::adapters::redis) fn new(settings: &TlsSettings) -> Result<Self, Error> {
            let loaded = Loaded {
                // First: a change in between is then noticed.
                fingerprint: fingerprint(settings),
                connector: load(settings)?,
            };
            Ok(Self {
                settings: settings.clone(),
                loaded: Arc::new(Mutex::new(loaded)),
            })
        }

        fn loaded(&self) -> MutexGuard<'_, Loaded> {
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Reads the files again if they have changed since they were read. Returns whether new ones
        /// are in use. Files that cannot be used, such as half written ones, change nothing.
        pub(in crate::adapters::redis) fn has_changed(&self) -> bool {
            if self.settings.is_empty() {
                return false;
            }
            let now = fingerprint(&self.settings);
            if now.is_none() || now == self.loaded().fingerprint {
                return false;
            }
            match load(&self.settings) {
                Ok(connector) => {
                    *self.loaded() = Loaded {
                        connector,
                        fingerprint: now,
                    };
                    log(|| tracing::info!("the TLS files have changed and are in use now"));
                    true
                }
                Err(error) => {
                    log(|| tracing::warn!(%error, "the changed TLS files cannot be used"));
                    false
                }
            }
        }

        /// Does the TLS handshake. The server must prove to be `host`.
        pub(in crate::adapters::redis) async fn over(
            &self,
            host: &str,
            stream: TcpStream,
        ) -> Result<TlsStream<TcpStream>, NoConnection> {
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            // A server without TLS may wait for the end of a command and never answer.
            let connector = self.loaded().connector.clone();
            let shaking = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream));
            let shaken = shaking.await.unwrap_or_else(|_| Err(TimedOut.into()));
            shaken.map_err(|cause| {
                let step = if is_plain_text(&cause) {
                    Step::Encrypt
                } else {
                    Step::Reach
                };
                let cause = cause.into();
                NoConnection { step, cause }
            })
        }
    }
}
