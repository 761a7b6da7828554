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
