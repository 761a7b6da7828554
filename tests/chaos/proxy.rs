//! A TCP proxy in front of the server that disturbs connections as networks do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::{Event, Journal};
use crate::traps::{self, Trap, Watch};

/// How long the server gets to execute a request whose reply is lost.
const EXECUTED: Duration = Duration::from_millis(50);
/// How much passes a narrow link at once.
const PORTION: usize = 1024;

/// What the proxy does to the traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weather {
    Fine,
    /// Each piece takes up to 100 ms.
    Slow,
    /// One byte at a time.
    Bytewise,
    /// All connections together pass the rate of this weather in each direction.
    Narrow,
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
    /// Bytes a second of a narrow link.
    rate: AtomicU32,
    /// When the narrow link can pass the next portion, in each direction.
    free_at: [Mutex<Instant>; 2],
    /// Whether connections break after a claim, before its reply.
    loses_claims: AtomicBool,
    /// Whether the server's memory is filled before a failed attempt is settled.
    fills: AtomicBool,
    server: SocketAddr,
    seed: u64,
    connections: AtomicU64,
    journal: Journal,
}

impl State {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    /// What the requests of now can set off.
    fn trap(&self) -> Option<Trap> {
        if self.loses_claims.load(Ordering::Acquire) {
            Some(Trap::Claim)
        } else if self.fills.load(Ordering::Acquire) {
            Some(Trap::Retry)
        } else {
            None
        }
    }
}

impl Proxy {
    pub(crate) async fn start(server: u16, seed: u64, journal: Journal) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            weather: Mutex::new(Weather::Fine),
            rate: AtomicU32::new(0),
            free_at: [(); 2].map(|()| Mutex::new(Instant::now())),
            loses_claims: AtomicBool::new(false),
            fills: AtomicBool::new(false),
            server: ([127, 0, 0, 1], server).into(),
            seed,
            connections: AtomicU64::new(0),
            journal,
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&accepting);
                tokio::spawn(serve(state, client));
            }
        });
        Self { state, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sets the weather; `pick` chooses how narrow a narrow link is.
    pub(crate) fn set(&self, weather: Weather, pick: u32) {
        let rate = [24, 64, 160][pick as usize % 3] * 1024;
        self.state.rate.store(rate, Ordering::Release);
        for free_at in &self.state.free_at {
            *free_at.lock().unwrap() = Instant::now();
        }
        *self.state.weather.lock().unwrap() = weather;
    }

    pub(crate) fn lose_claims(&self, loses: bool) {
        self.state.loses_claims.store(loses, Ordering::Release);
    }

    pub(crate) fn fill_at_retries(&self, fills: bool) {
        self.state.fills.store(fills, Ordering::Release);
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

async fn serve(state: Arc<State>, client: TcpStream) {
    let number = state.connections.fetch_add(1, Ordering::Relaxed);
    if state.weather() == Weather::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(state.server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let end = CancellationToken::new();
    let loses_replies = Arc::<AtomicBool>::default();
    let pipe = |from, to, direction: usize| Pipe {
        from,
        to,
        direction,
        state: Arc::clone(&state),
        random: fastrand::Rng::with_seed(state.seed ^ (number << 1) ^ direction as u64),
        swallowing: false,
        watch: Watch::default(),
        loses_replies: Arc::clone(&loses_replies),
        end: end.clone(),
    };
    let requests = pipe(from_client, to_server, REQUESTS);
    let replies = pipe(from_server, to_client, REPLIES);
    tokio::join!(requests.run(), replies.run());
}

const REQUESTS: usize = 0;
const REPLIES: usize = 1;

/// One direction of a connection.
struct Pipe {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: usize,
    state: Arc<State>,
    random: fastrand::Rng,
    swallowing: bool,
    watch: Watch,
    /// Shared by both directions: the next reply is lost, and the connection breaks.
    loses_replies: Arc<AtomicBool>,
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
        match self.direction {
            REQUESTS => self.set_off(piece).await,
            _ if self.loses_replies.load(Ordering::Acquire) => {
                // Others may have asked on this connection before, so the claim may still be under way.
                tokio::time::sleep(EXECUTED).await;
                return false;
            }
            _ => {}
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
            Weather::Narrow => {
                for portion in piece.chunks(PORTION) {
                    self.squeeze(portion.len()).await;
                    if self.to.write_all(portion).await.is_err() {
                        return false;
                    }
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

    /// Sets off the trap that a request meets, before the server gets the request.
    async fn set_off(&mut self, piece: &[u8]) {
        let Some(trap) = self.state.trap() else {
            self.watch.clear();
            return;
        };
        if !self.watch.sees(trap, piece) {
            return;
        }
        match trap {
            Trap::Claim if self.random.u8(0..4) > 0 => {
                self.state.journal.write(Event::ClaimLost);
                self.loses_replies.store(true, Ordering::Release);
            }
            Trap::Retry if self.random.u8(0..4) > 0 => {
                let lasts = Duration::from_millis(self.random.u64(20..300));
                if traps::fill(self.state.server, lasts).await.is_ok() {
                    self.state.journal.write(Event::FullAtRetry);
                }
            }
            _ => {}
        }
    }

    /// Waits until a narrow link can pass `bytes`, or is no longer narrow.
    async fn squeeze(&self, bytes: usize) {
        let rate = f64::from(self.state.rate.load(Ordering::Acquire).max(1));
        let until = {
            let mut free_at = self.state.free_at[self.direction].lock().unwrap();
            *free_at = Instant::now().max(*free_at) + Duration::from_secs_f64(bytes as f64 / rate);
            *free_at
        };
        while Instant::now() < until && self.state.weather() == Weather::Narrow {
            let slice = Instant::now() + Duration::from_millis(50);
            tokio::time::sleep_until(until.min(slice)).await;
        }
    }
}
