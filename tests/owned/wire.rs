//! A connection to the server that can keep back what a process sends, as a network does that delivers late.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A proxy before a server. It ends with its runtime.
pub(crate) struct Wire {
    port: u16,
    keeps: watch::Sender<bool>,
    /// What it has kept back.
    kept: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Wire {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            keeps: watch::channel(false).0,
            kept: Arc::default(),
            connections: Arc::default(),
        };
        let (keeps, kept) = (wire.keeps.clone(), Arc::clone(&wire.kept));
        let connections = Arc::clone(&wire.connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let serving = serve(client, server, keeps.subscribe(), Arc::clone(&kept));
                connections.lock().unwrap().spawn(serving);
            }
        });
        wire
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Keeps back what the process sends from now on. The process goes on hearing the server.
    pub(crate) fn keep(&self) {
        self.keeps.send_replace(true);
    }

    /// Whether it has kept back a text.
    pub(crate) fn has_kept(&self, text: &str) -> bool {
        let kept = self.kept.lock().unwrap();
        let mut places = kept.windows(text.len());
        places.any(|place| place == text.as_bytes())
    }

    /// Delivers what it has kept back of a process that has died, and waits until the server has read it.
    pub(crate) async fn deliver(&self) {
        self.keeps.send_replace(false);
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.join_all().await;
    }
}

/// Passes on what both sides say until the server has read everything.
async fn serve(
    client: TcpStream,
    server: TcpStream,
    mut keeps: watch::Receiver<bool>,
    kept: Arc<Mutex<Vec<u8>>>,
) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (sender, mut pieces) = mpsc::unbounded_channel();
    let is_keeping = keeps.clone();
    // Reads at once: a process that dies takes along what nobody has read.
    let reading = async move {
        let mut piece = vec![0; 65_536];
        while let Ok(length @ 1..) = from_client.read(&mut piece).await {
            let piece = piece[..length].to_vec();
            if *is_keeping.borrow() {
                kept.lock().unwrap().extend(&piece);
            }
            let _ = sender.send(piece);
        }
    };
    let writing = async move {
        while let Some(piece) = pieces.recv().await {
            let _ = keeps.wait_for(|keeps| !keeps).await;
            // The server may have ended.
            let _ = to_server.write_all(&piece).await;
        }
        let _ = to_server.shutdown().await;
    };
    let hearing = async move {
        let mut piece = vec![0; 65_536];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            // The process may have died.
            let _ = to_client.write_all(&piece[..length]).await;
        }
    };
    tokio::join!(reading, writing, hearing);
}
