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
    use redstart::store::Store;
    use redstart::testing::conformance::Subject;

    use crate::support::roles::Roles;
    use crate::support::{builder, group};

    #[derive(Debug)]
    struct ByRole {
        producer: Arc<dyn Store>,
        consumer: Arc<dyn Store>,
        operator: Arc<dyn Store>,
        viewer: Arc<dyn Store>,
        /// What no role may: removing a group, and CONFIG GET, which is asked for a server's facts.
        administrator: Arc<dyn Store>,
    }

    impl Store for ByRole {
        redstart::forward_store!(producer: name, clock, clock_set, ping, ensure_topic, append,
            append_once);
        redstart::forward_store!(consumer: create_group, open, acknowledge, settle, extend,
            release, pending_of, reclaim, promote, trim, trim_redelivery, prune_consumers);
        redstart::forward_store!(operator: run_now, cancel, dead_letters);
        redstart::forward_store!(viewer: topics, status, scheduled, consumers, browse, newest);
        redstart::forward_store!(administrator: remove_group, server);
    }

    impl Subject for Roles {
        async fn container(&self, service: &str) -> Container {
            let role = async |name| self.container(name, service).await;
            let consumer = role("consumer").await;
            let by_role = ByRole {
                producer: role("producer").await.store(),
                consumer: consumer.store(),
                operator: role("operator").await.store(),
                viewer: role("viewer").await.store(),
                administrator: builder(&self.server).connect().await.unwrap().store(),
            };
            Container::builder()
                .with_store(Arc::new(by_role), consumer.kv())
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
