//! Where the demo plays: a server that was given, or one of its own.

use redstart::{Container, ContainerBuilder, Namespace};
use uuid::Uuid;

use super::server::PrivateServer;
use crate::failure::Failure;
use crate::settings::Settings;

const NOTHING_TO_PLAY_ON: &str = "the demo needs a Redis server, 7.0 or later: put redis-server \
     on the PATH (apt install redis-server, brew install redis), or set REDSTART_REDIS_URL";

/// Where the demo plays.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) url: String,
    pub(super) namespace: Namespace,
    pub(super) private: Option<PrivateServer>,
}

impl Ground {
    /// Takes the server that was given, else starts one.
    pub(super) fn choose(settings: &Settings) -> Result<Self, Failure> {
        if let Some(url) = settings.redis_url() {
            // Fresh, so that nothing on a shared server is disturbed: not the settings' own.
            let random = Uuid::new_v4().simple().to_string();
            return Ok(Self {
                url: url.to_owned(),
                namespace: Namespace::new(format!("redstart-demo-{}", &random[..12]))?,
                private: None,
            });
        }
        match PrivateServer::start()? {
            Some(server) => Ok(Self {
                url: server.url().to_owned(),
                namespace: Namespace::new("redstart-demo")?,
                private: Some(server),
            }),
            // The embedded memory adapter belongs here: no server, and workers that are no
            // processes.
            None => Err(Failure::new(NOTHING_TO_PLAY_ON)),
        }
    }

    pub(super) async fn connect(&mut self) -> Result<Container, Failure> {
        let (url, namespace) = (self.url.clone(), self.namespace.clone());
        let builder = || -> Result<ContainerBuilder, Failure> {
            let builder = ContainerBuilder::from_env().map_err(Failure::of_settings)?;
            Ok(builder
                .with_redis_url(url.clone())
                .with_namespace(namespace.clone()))
        };
        match &mut self.private {
            Some(server) => server.connect(builder).await,
            None => builder()?.connect().await.map_err(Failure::of_settings),
        }
    }
}
