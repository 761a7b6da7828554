//! A key-value store without a container.

use crate::adapters::redis::{Access, Migrations, TlsSettings, unplaced};
use crate::api::{Kv, StoreKv};
use crate::domain::{Error, Namespace};

impl Kv {
    /// Returns a key-value store on a Redis server, without a bus. It connects when it is first used,
    /// and then asks for the [placement](crate::Placement) of the namespace. Until a container sets the
    /// namespace up, it has the names of [`Placement::Spread`](crate::Placement::Spread).
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad URL. The error never quotes the URL.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use redstart::Kv;
    ///
    /// # async fn run() -> Result<(), redstart::Error> {
    /// let kv = Kv::connect("redis://127.0.0.1:6379", None)?;
    /// kv.set("greeting", "hello").await?;
    /// assert_eq!(kv.get::<String>("greeting").await?.as_deref(), Some("hello"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(url: &str, namespace: Option<Namespace>) -> Result<Self, Error> {
        Self::connect_with_tls(url, &TlsSettings::new(), namespace)
    }

    /// Returns a key-value store as [`connect`](Self::connect) does, with [`TlsSettings`] for a
    /// `rediss://` server.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`Invalid`](crate::ErrorKind::Invalid) for an unusable
    /// certificate file, or for TLS settings with a plain-text URL.
    pub fn connect_with_tls(
        url: &str,
        tls: &TlsSettings,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        let layout = Migrations::with_access(url, &Access::by(tls), namespace, None)?;
        Ok(StoreKv::of(unplaced(layout)))
    }
}
