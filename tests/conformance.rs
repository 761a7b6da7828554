//! Both adapters mean the same: the conformance suite, with no check left out for either.

mod support;

mod memory {
    use redstart::testing::conformance::Subject;
    use redstart::{Container, memory::MemoryStore};

    use crate::support::group;

    struct Memory(MemoryStore);

    impl Subject for Memory {
        async fn container(&self, service: &str) -> Container {
            let builder = Container::builder().with_service(group(service));
            builder.with_memory(self.0.clone()).connect().await.unwrap()
        }
    }

    async fn memory() -> Memory {
        Memory(MemoryStore::new())
    }

    redstart::conformance!(memory);
}

/// A store without a key-value store: the suite checks that it refuses one.
mod lean {
    use std::sync::Arc;

    use redstart::envelope::Timestamp;
    use redstart::memory::MemoryStore;
    use redstart::ports::BoxFuture;
    use redstart::store::decorate::Nowhere;
    use redstart::store::{
        Capabilities, DeadLetters, Deliveries, Inspect, Log, Opened, Opening, Schedule, Store,
        Topics, Values,
    };
    use redstart::testing::conformance::Subject;
    use redstart::{Container, Error};

    use crate::support::group;

    #[derive(Clone, Debug)]
    struct Lean(Arc<dyn Store>);

    impl Store for Lean {
        fn name(&self) -> &'static str {
            self.0.name()
        }

        fn capabilities(&self) -> Capabilities {
            let mut capabilities = self.0.capabilities();
            capabilities.values = false;
            capabilities.effects = false;
            capabilities.later = false;
            capabilities.ownership = false;
            capabilities
        }

        fn now(&self) -> Timestamp {
            self.0.now()
        }

        fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
            self.0.open(opening)
        }

        fn topics(&self) -> &dyn Topics {
            self.0.topics()
        }

        fn log(&self) -> &dyn Log {
            self.0.log()
        }

        fn deliveries(&self) -> &dyn Deliveries {
            self.0.deliveries()
        }

        fn schedule(&self) -> &dyn Schedule {
            self.0.schedule()
        }

        fn dead_letters(&self) -> &dyn DeadLetters {
            self.0.dead_letters()
        }

        fn inspect(&self) -> &dyn Inspect {
            self.0.inspect()
        }

        fn values(&self) -> &dyn Values {
            &Nowhere
        }
    }

    impl Subject for Lean {
        async fn container(&self, service: &str) -> Container {
            Container::builder()
                .with_store(Arc::new(self.clone()))
                .with_service(group(service))
                .connect()
                .await
                .unwrap()
        }
    }

    async fn lean() -> Lean {
        Lean(MemoryStore::new().store(None))
    }

    redstart::conformance!(lean);
}

mod redis {
    use redstart::Container;
    use redstart::testing::conformance::Subject;

    use crate::support::{Server, builder, group};

    impl Subject for Server {
        async fn container(&self, service: &str) -> Container {
            let builder = builder(self).with_service(group(service));
            builder.connect().await.unwrap()
        }
    }

    async fn redis() -> Server {
        Server::start()
    }

    redstart::conformance!(redis);

    /// `tests/servers` announces the version of the server that it put into the PATH. Without it,
    /// the program in the PATH says which version must answer.
    #[tokio::test]
    async fn the_suite_runs_on_the_announced_server() {
        let server = Server::start();
        let info: String = server.command(&["INFO", "server"]);
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        // Valkey reports the Redis version that it is compatible with, beside its own.
        let running = field("valkey_version").or_else(|| field("redis_version"));
        let announced = std::env::var("REDSTART_TEST_SERVER").unwrap_or_else(|_| {
            let mut program = std::process::Command::new("redis-server");
            let said = program.arg("--version").output().unwrap().stdout;
            let said = String::from_utf8(said).unwrap();
            let version = said.split(" v=").nth(1).expect("a version");
            version.split_whitespace().next().unwrap().to_owned()
        });
        assert_eq!(running, Some(announced.as_str()), "{info}");
    }
}

/// A node of a cluster that holds all slots: it refuses each call whose keys lie in several slots.
mod one_node {
    use std::sync::LazyLock;

    use redstart::testing::conformance::Subject;
    use redstart::{Container, Namespace};

    use crate::support::{cluster::Cluster, group};

    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(1, 0));

    /// A namespace of the shared cluster.
    struct OneNode(Namespace);

    impl Subject for OneNode {
        async fn container(&self, service: &str) -> Container {
            let builder = CLUSTER.builder(&self.0).with_service(group(service));
            builder.connect().await.unwrap()
        }
    }

    async fn one_node() -> OneNode {
        OneNode(CLUSTER.namespace())
    }

    redstart::conformance!(one_node);

    /// A namespace of the same cluster whose keys have one slot.
    mod together {
        use redstart::testing::conformance::Subject;
        use redstart::{Container, Namespace, Placement};

        use super::CLUSTER;
        use crate::support::group;

        struct Together(Namespace);

        impl Subject for Together {
            async fn container(&self, service: &str) -> Container {
                let builder = CLUSTER.builder(&self.0).with_service(group(service));
                let builder = builder.with_placement(Placement::Together);
                builder.connect().await.unwrap()
            }
        }

        async fn together() -> Together {
            Together(CLUSTER.namespace())
        }

        // Every kind of key has a check among these.
        redstart::conformance!(together:
            publish, deduplication, settle, retries, schedules, dead_letters, redrive, retention,
            kv, listing, cas, once, effects, handler_effects, commit_unknown, capabilities, health
        );
    }
}

/// Three primaries with a replica each.
mod cluster {
    use std::sync::LazyLock;

    use redstart::testing::conformance::Subject;
    use redstart::{Container, Namespace};

    use crate::support::{cluster::Cluster, group};

    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(3, 1));

    /// A namespace of the shared cluster.
    struct Nodes(Namespace);

    impl Subject for Nodes {
        async fn container(&self, service: &str) -> Container {
            let builder = CLUSTER.builder(&self.0).with_service(group(service));
            builder.connect().await.unwrap()
        }
    }

    async fn cluster() -> Nodes {
        Nodes(CLUSTER.namespace())
    }

    redstart::conformance!(cluster);

    /// A namespace of the same cluster whose keys have one slot.
    mod together {
        use redstart::testing::conformance::Subject;
        use redstart::{Container, Namespace, Placement};

        use super::CLUSTER;
        use crate::support::group;

        struct Together(Namespace);

        impl Subject for Together {
            async fn container(&self, service: &str) -> Container {
                let builder = CLUSTER.builder(&self.0).with_service(group(service));
                let builder = builder.with_placement(Placement::Together);
                builder.connect().await.unwrap()
            }
        }

        async fn together() -> Together {
            Together(CLUSTER.namespace())
        }

        redstart::conformance!(together: effects, handler_effects, schedules, groups);
    }
}

/// The suite once more, every reader on the shared connection.
mod shared {
    use std::sync::Arc;

    use redstart::ports::BoxFuture;
    use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use redstart::testing::conformance::Subject;
    use redstart::topics::Reading;
    use redstart::{Container, Error};

    use crate::support::{Server, builder, group};

    #[derive(Debug)]
    struct AllShared;

    impl Decorator for AllShared {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                match op {
                    Op::Open(opening) => {
                        let opening = opening.clone().with_reading(Reading::Shared);
                        Ok(Answer::Open(next.store.open(&opening).await?))
                    }
                    op => next.run(op).await,
                }
            })
        }
    }

    struct Shared(Server);

    impl Subject for Shared {
        async fn container(&self, service: &str) -> Container {
            let container = builder(&self.0).connect().await.unwrap();
            let store = Decorated::new(Arc::new(AllShared), container.store());
            Container::builder()
                .with_store(Arc::new(store))
                .with_service(group(service))
                .connect()
                .await
                .unwrap()
        }
    }

    async fn shared() -> Shared {
        Shared(Server::start())
    }

    redstart::conformance!(shared);
}

/// A primary that a sentinel names.
mod sentinel {
    use std::sync::LazyLock;

    use redstart::testing::conformance::Subject;
    use redstart::{Container, Namespace};

    use crate::support::{group, sentinel::Watched};

    static WATCHED: LazyLock<Watched> = LazyLock::new(|| Watched::start(1, 1));

    /// A namespace of the shared server.
    struct Service(Namespace);

    impl Subject for Service {
        async fn container(&self, service: &str) -> Container {
            let builder = WATCHED.builder(&self.0).with_service(group(service));
            builder.connect().await.unwrap()
        }
    }

    async fn sentinel() -> Service {
        Service(WATCHED.namespace())
    }

    redstart::conformance!(sentinel);
}

/// The suite once more, every operation done by the role that has it.
mod roles {
    use std::sync::Arc;

    use redstart::ports::BoxFuture;
    use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use redstart::store::{
        InspectOp, LaterOp, LogOp, OwnersOp, ScheduleOp, Store, TopicsOp, ValuesOp,
    };
    use redstart::testing::conformance::Subject;
    use redstart::{Container, Error};

    use crate::support::roles::Roles;
    use crate::support::{builder, group};

    /// Routes each operation to a user with the right to it.
    #[derive(Debug)]
    struct ByRole {
        producer: Arc<dyn Store>,
        consumer: Arc<dyn Store>,
        stage: Arc<dyn Store>,
        operator: Arc<dyn Store>,
        viewer: Arc<dyn Store>,
        /// Operations that no role may run: removing a group or a topic, listing keys, and CONFIG GET, which the server facts need.
        administrator: Arc<dyn Store>,
    }

    impl ByRole {
        fn user(&self, op: Op<'_>) -> &dyn Store {
            match op {
                // The first topic with several partitions raises the layout of the namespace.
                Op::Topics(TopicsOp::EnsureTopic { settings, .. }) if settings.partitions() > 1 => {
                    &*self.operator
                }
                Op::Topics(TopicsOp::EnsureTopic { .. })
                | Op::Log(
                    LogOp::Append { .. }
                    | LogOp::AppendOnce { .. }
                    | LogOp::AppendDurably { .. }
                    | LogOp::CanKeep { .. },
                )
                | Op::Inspect(InspectOp::Ping { .. } | InspectOp::TryWrite { .. }) => {
                    &*self.producer
                }
                Op::Schedule(ScheduleOp::RunNow { .. } | ScheduleOp::Cancel { .. })
                | Op::Topics(TopicsOp::ChangeSettings { .. })
                | Op::DeadLetters(_) => &*self.operator,
                Op::Later(
                    LaterOp::Put { .. } | LaterOp::Promote { .. } | LaterOp::Reschedule { .. },
                ) => &*self.producer,
                Op::Later(LaterOp::Cancel { .. }) => &*self.operator,
                Op::Topics(TopicsOp::List { .. })
                | Op::Log(_)
                | Op::Later(_)
                | Op::Schedule(ScheduleOp::List { .. })
                | Op::Inspect(
                    InspectOp::Status { .. }
                    | InspectOp::Consumers { .. }
                    | InspectOp::Placement { .. },
                )
                | Op::Owners(OwnersOp::Progress { .. })
                | Op::Values(ValuesOp::Peek { .. }) => &*self.viewer,
                Op::Topics(
                    TopicsOp::RemoveGroup { .. }
                    | TopicsOp::ResetGroup { .. }
                    | TopicsOp::RemoveTopic { .. },
                )
                | Op::Inspect(InspectOp::Servers { .. })
                | Op::Values(ValuesOp::Scan { .. }) => &*self.administrator,
                Op::EffectStore(_) => &*self.stage,
                _ => &*self.consumer,
            }
        }
    }

    impl Decorator for ByRole {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            next.store = self.user(op);
            let Op::Owners(OwnersOp::Create { at, start }) = op else {
                return next.run(op);
            };
            // The first owned group raises the layout of the namespace. Consumers create the others.
            Box::pin(async move {
                self.operator.owners().create(at, start).await?;
                next.run(op).await
            })
        }
    }

    impl Subject for Roles {
        async fn container(&self, service: &str) -> Container {
            let role = async |name| self.container(name, service).await;
            let consumer = role("consumer").await;
            let by_role = ByRole {
                producer: role("producer").await.store(),
                consumer: consumer.store(),
                stage: role("stage").await.store(),
                operator: role("operator").await.store(),
                viewer: role("viewer").await.store(),
                administrator: builder(&self.server).connect().await.unwrap().store(),
            };
            let inner = consumer.store();
            let by_role = Decorated::new(Arc::new(by_role), inner);
            Container::builder()
                .with_store(Arc::new(by_role))
                .with_service(group(service))
                .connect()
                .await
                .unwrap()
        }
    }

    impl Drop for Roles {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                assert_eq!(self.denied(), [""; 0], "the server's ACL LOG");
            }
        }
    }

    async fn roles() -> Roles {
        Roles::start().await
    }

    redstart::conformance!(roles);

    /// The same with the rules of placement `together`.
    mod together {
        use redstart::Placement;

        use super::Roles;

        async fn together() -> Roles {
            Roles::start_as(Placement::Together).await
        }

        redstart::conformance!(together:
            publish, deduplication, settle, leases, retries, schedules, dead_letters, redrive,
            retention, kv, listing, cas, once, once_completion, effects, commit_unknown, health
        );
    }
}
