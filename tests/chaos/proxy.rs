//! A TCP proxy in front of the server that disturbs connections as networks do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What the proxy does to the traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weather {
    Fine,
    /// Each piece takes up to 100 ms.
    Slow,
    /// One byte at a time.
    Bytewise,
    /// One piece in eight ends half-way, and with it the connection.
    Cut,
    /// The same, with a reset.
    Reset,
    /// One piece in four is swallowed with all that follows on its connection, in one direction
    /// or in both, and nobody is told: also not when the weather is fine again.
    HalfOpen,
    /// New connections are closed at once.
    Refuse,
}

/// A running proxy. Clones are the same. It ends with its runtime.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    state: Arc<State>,
    port: u16,
}

#[derive(Debug)]
struct State {
    weather: Mutex<Weather>,
    seed: u64,
    connections: AtomicU64,
}

impl State {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }
}

impl Proxy {
    pub(crate) async fn start(server: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            weather: Mutex::new(Weather::Fine),
            seed,
            connections: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&accepting);
                tokio::spawn(serve(state, client, ([127, 0, 0, 1], server).into()));
            }
        });
        Self { state, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.state.weather.lock().unwrap() = weather;
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

async fn serve(state: Arc<State>, client: TcpStream, server: SocketAddr) {
    let number = state.connections.fetch_add(1, Ordering::Relaxed);
    if state.weather() == Weather::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let end = CancellationToken::new();
    let pipe = |from, to, direction: u64| Pipe {
        from,
        to,
        state: Arc::clone(&state),
        random: fastrand::Rng::with_seed(state.seed ^ (number << 1) ^ direction),
        swallowing: false,
        end: end.clone(),
    };
    let requests = pipe(from_client, to_server, 0);
    let replies = pipe(from_server, to_client, 1);
    tokio::join!(requests.run(), replies.run());
}

/// One direction of a connection.
struct Pipe {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    state: Arc<State>,
    random: fastrand::Rng,
    swallowing: bool,
    /// The connection ends, in both directions.
    end: CancellationToken,
}

impl Pipe {
    async fn run(mut self) {
        let mut piece = vec![0; 16 * 1024];
        let end = self.end.clone();
        loop {
            let read = tokio::select! {
                () = end.cancelled() => return,
                read = self.from.read(&mut piece) => read,
            };
            let passed = match read {
                Ok(length @ 1..) => self.pass(&piece[..length]).await,
                _ => false,
            };
            if !passed {
                return end.cancel();
            }
        }
    }

    /// Passes a piece on as the weather allows; false when the connection is to end.
    async fn pass(&mut self, piece: &[u8]) -> bool {
        if self.swallowing {
            return true;
        }
        match self.state.weather() {
            Weather::Fine | Weather::Refuse => {}
            Weather::Slow => {
                let wait = Duration::from_millis(self.random.u64(0..100));
                tokio::time::sleep(wait).await;
            }
            Weather::Bytewise => {
                for byte in piece {
                    if self.to.write_all(&[*byte]).await.is_err() {
                        return false;
                    }
                    tokio::task::yield_now().await;
                }
                return true;
            }
            weather @ (Weather::Cut | Weather::Reset) => {
                if self.random.u8(0..8) == 0 {
                    let half = self.random.usize(0..piece.len());
                    let _ = self.to.write_all(&piece[..half]).await;
                    if weather == Weather::Reset {
                        let _ = self.to.as_ref().set_zero_linger();
                        let _ = self.from.as_ref().set_zero_linger();
                    }
                    return false;
                }
            }
            Weather::HalfOpen => {
                if self.random.u8(0..4) == 0 {
                    self.swallowing = true;
                    return true;
                }
            }
        }
        self.to.write_all(piece).await.is_ok()
    }
}
