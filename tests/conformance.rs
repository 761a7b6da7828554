//! Both adapters mean the same: the conformance suite, with no check left out for either.

mod support;

mod memory {
    use redstart::testing::conformance::Subject;
    use redstart::{Container, MemoryStore};

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
}

/// The suite once more, every operation done by the role that has it.
mod roles {
    use std::sync::Arc;

    use redstart::Container;
    use redstart::store::Backend;
    use redstart::testing::conformance::Subject;

    use crate::support::roles::Roles;
    use crate::support::{builder, group};

    #[derive(Debug)]
    struct ByRole {
        producer: Arc<dyn Backend>,
        consumer: Arc<dyn Backend>,
        operator: Arc<dyn Backend>,
        viewer: Arc<dyn Backend>,
        /// What no role may: removing a group, and CONFIG GET, which is asked for a server's facts.
        administrator: Arc<dyn Backend>,
    }

    impl Backend for ByRole {
        redstart::forward_backend!(producer: name, clock, clock_set, ping, ensure_topic, append,
            append_once);
        redstart::forward_backend!(consumer: create_group, open, acknowledge, settle, extend,
            release, holdings, reclaim, promote, retain, retain_redo, forget);
        redstart::forward_backend!(operator: hasten, cancel, graves);
        redstart::forward_backend!(viewer: topics, status, scheduled, consumers, browse, newest);
        redstart::forward_backend!(administrator: remove_group, server);
    }

    impl Subject for Roles {
        async fn container(&self, service: &str) -> Container {
            let role = async |name| self.container(name, service).await;
            let consumer = role("consumer").await;
            let by_role = ByRole {
                producer: role("producer").await.backend(),
                consumer: consumer.backend(),
                operator: role("operator").await.backend(),
                viewer: role("viewer").await.backend(),
                administrator: builder(&self.server).connect().await.unwrap().backend(),
            };
            Container::builder()
                .with_backend(Arc::new(by_role), consumer.kv())
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
}
