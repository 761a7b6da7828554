//! A server with the users that the documentation ships, and an administrator.

use redstart::{Container, Placement, container::ContainerBuilder};

use super::{Server, builder};

macro_rules! shipped {
    ($role:literal) => {
        (
            $role,
            include_str!(concat!("../../src/docs/acl/", $role, ".acl")),
            include_str!(concat!("../../src/docs/acl/together/", $role, ".acl")),
        )
    };
}

/// A role and its line of an ACL file, as shipped for each placement.
const SHIPPED: [(&str, &str, &str); 6] = [
    shipped!("producer"),
    shipped!("consumer"),
    shipped!("stage"),
    shipped!("operator"),
    shipped!("viewer"),
    shipped!("janitor"),
];

/// The access rules of the roles. The password of each is its name and `-secret`.
pub(crate) fn acl_file() -> tempfile::NamedTempFile {
    acl_file_for(Placement::Spread)
}

/// The same for another placement.
pub(crate) fn acl_file_for(placement: Placement) -> tempfile::NamedTempFile {
    let mut lines = "user default on nopass ~* &* +@all\n".to_owned();
    for (role, spread, together) in SHIPPED {
        let line = match placement {
            Placement::Together => together,
            _ => spread,
        };
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
    pub(crate) placement: Placement,
    _file: tempfile::NamedTempFile,
}

impl Roles {
    /// Namespace `shop` is set up, which no role but the operator may do.
    pub(crate) async fn start() -> Self {
        Self::start_as(Placement::Spread).await
    }

    /// The same with another placement.
    pub(crate) async fn start_as(placement: Placement) -> Self {
        let file = acl_file_for(placement);
        let path = file.path().to_str().unwrap().to_owned();
        let roles = Self {
            server: Server::start_with(&["--aclfile", &path, "--enable-debug-command", "local"]),
            placement,
            _file: file,
        };
        // The shipped file must load on Redis 7.0, which does not know the command.
        let _: Result<(), _> = redis::cmd("ACL")
            .arg(&["SETUSER", "redstart-producer", "+waitaof"])
            .exec(&mut roles.server.raw());
        let operator = roles.builder("operator").with_placement(placement);
        operator.connect().await.unwrap();
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
