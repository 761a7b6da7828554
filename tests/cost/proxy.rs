//! A proxy that counts the client's traffic.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Sub;
use std::sync::{Arc, Mutex};
use std::thread;

use redstart::Container;

use crate::support::{Server, builder};

/// The client's traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    counts: BTreeMap<String, u64>,
    /// The bytes of all commands but `SCRIPT`: a script is loaded once for each server.
    pub(crate) bytes: u64,
}

impl Seen {
    /// All commands.
    pub(crate) fn commands(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The commands of a name.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

impl Sub for Seen {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let counts = self.counts.iter();
        Self {
            counts: counts
                .map(|(name, count)| (name.clone(), count - before.of(name)))
                .collect(),
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A server, and a container that talks to it through a proxy.
pub(crate) async fn through_proxy() -> (Server, Proxy, Container) {
    let server = Server::start();
    let proxy = Proxy::before(&server);
    let container = builder(&server).with_redis_url(proxy.url());
    let container = container.connect().await.unwrap();
    (server, proxy, container)
}

/// Listens on a port of its own and passes everything on.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Proxy {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Seen>>::default();
        let url = server.url();
        let to = url.trim_start_matches("redis://").trim_end_matches('/');
        let (all, to) = (Arc::clone(&seen), to.to_owned());
        // Ends with the process; its connections end with the server.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || pass_on(back.0, back.1, |_| {}));
                let (seen, mut commands) = (Arc::clone(&all), Commands::default());
                thread::spawn(move || {
                    pass_on(client, server, move |bytes| {
                        let mut seen = seen.lock().unwrap();
                        commands.read(bytes, &mut seen);
                    });
                });
            }
        });
        Self { port, seen }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

/// Copies until one side ends; looks at everything before it is passed on.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Reads commands, which are arrays of payloads, in whatever pieces they come.
#[derive(Debug, Default)]
struct Commands {
    rest: Vec<u8>,
}

impl Commands {
    fn read(&mut self, bytes: &[u8], seen: &mut Seen) {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((name, length)) = command(&self.rest[at..]) {
            if name != "SCRIPT" {
                seen.bytes += length as u64;
            }
            *seen.counts.entry(name).or_default() += 1;
            at += length;
        }
        self.rest.drain(..at);
    }
}

/// The name and the length of the command at the beginning, once it is complete.
fn command(bytes: &[u8]) -> Option<(String, usize)> {
    let (parts, mut at) = header(bytes, b'*')?;
    let mut name = String::new();
    for part in 0..parts {
        // The line break of the part before it may still be on its way.
        let (length, begin) = header(bytes.get(at..)?, b'$')?;
        let text = bytes.get(at + begin..at + begin + length)?;
        if part == 0 {
            name = String::from_utf8_lossy(text).to_uppercase();
        }
        at += begin + length + 2;
    }
    (at <= bytes.len()).then_some((name, at))
}

/// The number in a header line and where the line ends.
fn header(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    assert_eq!(bytes[0], kind, "the client sends arrays of payloads");
    let number = std::str::from_utf8(&bytes[1..end]).unwrap();
    Some((number.parse().unwrap(), end + 2))
}
