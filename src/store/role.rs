//! `role!` lists the methods of one role once.
//!
//! From that list it makes the trait that adapters implement and callers use, its operations and
//! answers as data, and the way from one to the other. A decorator sees the data; nothing else
//! does, so a call of an undecorated store is a plain method call.
//!
//! Every argument is `Copy` (a reference, a number, a small id): an operation can be run, looked
//! at and recorded without a clone. Every method returns a boxed `Result<_, Error>`.

macro_rules! role {
    (
        $(#[$doc:meta])*
        pub trait $role:ident ($accessor:ident, $op:ident, $answer:ident, $calls:ident) {
            $(
                $(#[$method_doc:meta])*
                fn $name:ident as $variant:ident($($arg:ident: $type:ty),* $(,)?) -> $reply:ty;
            )*
        }
    ) => {
        $(#[$doc])*
        ///
        /// Dropping a returned future before its first poll does nothing.
        pub trait $role: Send + Sync {
            $(
                $(#[$method_doc])*
                fn $name<'a>(
                    &'a self, $($arg: $type),*
                ) -> $crate::domain::BoxFuture<'a, Result<$reply, $crate::domain::Error>>;
            )*
        }

        #[doc = concat!("An operation of [`", stringify!($role), "`] as data.")]
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum $op<'a> {
            $(
                #[doc = concat!("[`", stringify!($role), "::", stringify!($name), "`]")]
                #[allow(missing_docs)]
                $variant { $($arg: $type),* },
            )*
        }

        impl<'a> $op<'a> {
            /// The role and the method, such as `log.append`.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => {
                        concat!(stringify!($accessor), ".", stringify!($name))
                    })*
                }
            }

            /// Calls the method at once, so that a future which is dropped unpolled is the
            /// method's own.
            pub(crate) fn run(
                self, role: &'a dyn $role,
            ) -> $crate::domain::BoxFuture<'a, Result<$answer, $crate::domain::Error>> {
                match self {
                    $(Self::$variant { $($arg),* } => {
                        let reply = role.$name($($arg),*);
                        Box::pin(async move { reply.await.map($answer::$variant) })
                    })*
                }
            }
        }

        #[doc = concat!("The answer to an operation of [`", stringify!($role), "`].")]
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum $answer {
            $(
                #[doc = concat!("[`", stringify!($role), "::", stringify!($name), "`]")]
                $variant($reply),
            )*
        }

        #[doc = concat!("Takes the operations of [`", stringify!($role), "`] as data, and so has its methods.")]
        pub trait $calls: Send + Sync {
            /// Runs an operation. The answer must be that of the operation.
            #[allow(clippy::missing_errors_doc)]
            fn run<'a>(
                &'a self, op: $op<'a>,
            ) -> $crate::domain::BoxFuture<'a, Result<$answer, $crate::domain::Error>>;
        }

        impl<T: $calls> $role for T {
            $(fn $name<'a>(
                &'a self, $($arg: $type),*
            ) -> $crate::domain::BoxFuture<'a, Result<$reply, $crate::domain::Error>> {
                Box::pin(async move {
                    let op = $op::$variant { $($arg),* };
                    match $calls::run(self, op).await? {
                        $answer::$variant(reply) => Ok(reply),
                        #[allow(unreachable_patterns)]
                        _ => Err($crate::domain::Error::new(
                            $crate::domain::ErrorKind::Invalid,
                            op.name(),
                            "a decorator gave the answer of another operation",
                        )),
                    }
                })
            })*
        }
    };
}
