//! TLS: who the server must prove to be, and who this client is.
//!
//! The only crate that does cryptography is `rustls` with its `ring` provider, chosen here and not
//! for the whole process, so that nothing depends on what else the process uses.

use std::fmt;
use std::path::PathBuf;

use crate::domain::{Error, ErrorKind};

#[cfg(feature = "tls")]
pub(in crate::adapters::redis) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(in crate::adapters::redis) use without::Tls;

/// How connections of a `rediss://` URL are made, beyond the URL. Files are PEM, and are read once,
/// when the container or store is made.
///
/// Certificates are always checked, names and times included; there is no setting against it.
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
    /// The authorities that the machine trusts, and no certificate of one's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file and no others; by default those of the machine.
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Shows the server this certificate, for a server that asks for one (mutual TLS); by default
    /// none. The first file has the certificate and those that lead to its authority, the
    /// second its private key.
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

    use redis::RedisError;
    use tokio::net::TcpStream;

    use super::{TlsSettings, invalid};
    use crate::domain::Error;

    /// There is none.
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
        ) -> Result<TcpStream, RedisError> {
            match self.0 {}
        }
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::path::Path;
    use std::sync::Arc;

    use redis::RedisError;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

    use super::{TlsSettings, invalid};
    use crate::domain::Error;

    /// Makes connections by TLS. Cheap to clone.
    #[derive(Clone)]
    pub(in crate::adapters::redis) struct Tls {
        connector: TlsConnector,
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

    impl Tls {
        pub(in crate::adapters::redis) fn new(settings: &TlsSettings) -> Result<Self, Error> {
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
                .map_err(|e| invalid("no protocol version is supported").because(e))?
                .with_root_certificates(roots);
            let config = match &settings.client {
                None => config.with_no_client_auth(),
                Some((chain, key_path)) => {
                    let key = PrivateKeyDer::from_pem_file(key_path)
                        // The cause may quote the file.
                        .map_err(|_| unreadable(key_path, "a private key"))?;
                    let paired = config.with_client_auth_cert(certificates(chain)?, key);
                    let rule = "the client's certificate and its key do not fit together";
                    paired.map_err(|e| invalid(rule).because(e))?
                }
            };
            Ok(Self {
                connector: TlsConnector::from(Arc::new(config)),
            })
        }

        /// Shakes hands; the server must prove to be `host`.
        pub(in crate::adapters::redis) async fn over(
            &self,
            host: &str,
            stream: TcpStream,
        ) -> Result<TlsStream<TcpStream>, RedisError> {
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            Ok(self.connector.connect(name, stream).await?)
        }
    }
}
