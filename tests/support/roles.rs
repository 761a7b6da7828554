//! A server with the users that the documentation ships, and an administrator.

use redstart::{Container, container::ContainerBuilder};

use super::{Server, builder};

/// A role and its line of an ACL file, as shipped.
const SHIPPED: [(&str, &str); 6] = [
    ("producer", include_str!("../../src/docs/acl/producer.acl")),
    ("consumer", include_str!("../../src/docs/acl/consumer.acl")),
    ("stage", include_str!("../../src/docs/acl/stage.acl")),
    ("operator", include_str!("../../src/docs/acl/operator.acl")),
    ("viewer", include_str!("../../src/docs/acl/viewer.acl")),
    ("janitor", include_str!("../../src/docs/acl/janitor.acl")),
];

/// The access rules of the roles. The password of each is its name and `-secret`.
pub(crate) fn acl_file() -> tempfile::NamedTempFile {
    let mut lines = "user default on nopass ~* &* +@all\n".to_owned();
    for (role, line) in SHIPPED {
        assert_eq!(
            line.matches(" off ").count(),
            1,
            "{role}: shipped without a way in"
        );
        lines.push_str(&line.replace(" off ", &format!(" on >{role}-secret ")));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    file
}

pub(crate) struct Roles {
    pub(crate) server: Server,
    _file: tempfile::NamedTempFile,
}

impl Roles {
    /// Namespace `shop` is set up, which no role but the operator may do.
    pub(crate) async fn start() -> Self {
        let file = acl_file();
        let path = file.path().to_str().unwrap().to_owned();
        let roles = Self {
            server: Server::start_with(&["--aclfile", &path, "--enable-debug-command", "local"]),
            _file: file,
        };
        // The shipped file must load on Redis 7.0, which does not know the command.
        let _: Result<(), _> = redis::cmd("ACL")
            .arg(&["SETUSER", "redstart-producer", "+waitaof"])
            .exec(&mut roles.server.raw());
        roles.container("operator", "billing").await;
        roles
    }

    pub(crate) fn url(&self, role: &str) -> String {
        let user = format!("redis://redstart-{role}:{role}-secret@");
        self.server.url().replace("redis://", &user)
    }

    pub(crate) fn builder(&self, role: &str) -> ContainerBuilder {
        builder(&self.server).with_redis_url(self.url(role))
    }

    pub(crate) async fn container(&self, role: &str, service: &str) -> Container {
        let builder = self.builder(role).with_service(super::group(service));
        builder.connect().await.unwrap()
    }

    /// The commands denied since the last call.
    pub(crate) fn denied(&self) -> Vec<String> {
        let log: Vec<redis::Value> = self.server.command(&["ACL", "LOG", "100"]);
        let _: String = self.server.command(&["ACL", "LOG", "RESET"]);
        log.iter().map(|entry| format!("{entry:?}")).collect()
    }
}
