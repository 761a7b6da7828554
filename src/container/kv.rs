//! A key-value store without a container.

use std::sync::Arc;

use crate::adapters::redis::{RedisKv, TlsSettings};
use crate::api::{Kv, KvStore};
use crate::domain::{Error, Namespace};

impl Kv {
    /// A key-value store on a Redis server, without a bus. Connections are made when they are
    /// needed.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) when the URL cannot be parsed. The error never
    /// quotes it.
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

    /// As [`connect`](Self::connect), on a `rediss://` server that needs more than the default
    /// [`TlsSettings`].
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`Invalid`](crate::ErrorKind::Invalid) for a file that
    /// cannot be used, or for settings that a URL in plain text would ignore.
    pub fn connect_with_tls(
        url: &str,
        tls: &TlsSettings,
        namespace: Option<Namespace>,
    ) -> Result<Self, Error> {
        let store: Arc<dyn KvStore> = Arc::new(RedisKv::new(url, tls, namespace)?);
        Ok(Self::from(store))
    }
}
