//! The preload shim: it records synced data and simulates a slow disk, a full disk and a wrong clock.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A shim for one process, with its control folder.
#[derive(Debug)]
pub(crate) struct Shim {
    /// Where the library is.
    built: Arc<tempfile::TempDir>,
    folder: tempfile::TempDir,
}

impl Shim {
    /// Builds it with the C compiler that links Rust programs, too.
    pub(crate) fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("shim.c");
        std::fs::write(&source, include_str!("shim.c")).unwrap();
        let built = Command::new("cc")
            .args(["-O2", "-Wall", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("shim.so"))
            .arg(&source)
            .arg("-ldl")
            .status()
            .expect("a C compiler is needed");
        assert!(built.success(), "the shim could not be built");
        Self {
            built: Arc::new(folder),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The same library for another process.
    pub(crate) fn another(&self) -> Self {
        Self {
            built: Arc::clone(&self.built),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The environment variables by which a process gets it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.built.path().join("shim.so"))),
            ("REDSTART_SHIM", text(self.folder.path())),
        ]
    }

    /// How much longer each sync is to take.
    pub(crate) fn slow(&self, millis: u64) {
        std::fs::write(self.path("slow"), millis.to_string()).unwrap();
    }

    /// Whether the disk is to be full.
    pub(crate) fn full(&self, full: bool) {
        std::fs::write(self.path("full"), u8::from(full).to_string()).unwrap();
    }

    /// By how much the clock is to be off.
    pub(crate) fn clock(&self, seconds: i64) {
        // Never empty in between: the process may be reading it.
        std::fs::write(self.path("clock.new"), seconds.to_string()).unwrap();
        std::fs::rename(self.path("clock.new"), self.path("clock")).unwrap();
    }

    /// Cuts the power: of every file in a folder remains what was certainly on the disk. The
    /// server must be dead. Returns how many bytes went.
    pub(crate) fn cut_power(&self, data: &Path) -> u64 {
        let record = std::fs::read_to_string(self.path("synced")).unwrap_or_default();
        let mut synced: HashMap<u64, u64> = HashMap::new();
        for line in record.lines() {
            // The last line may have been cut off with the server.
            if let Some((inode, size)) = line.split_once(' ')
                && let (Ok(inode), Ok(size)) = (inode.parse(), size.parse())
            {
                let most = synced.entry(inode).or_insert(size);
                *most = size.max(*most);
            }
        }
        let mut gone = 0;
        for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
            let known = entry.metadata().unwrap();
            if known.is_file() {
                let keep = synced.get(&known.ino()).copied().unwrap_or(0);
                if keep < known.len() {
                    let file = std::fs::OpenOptions::new().write(true).open(entry.path());
                    file.unwrap().set_len(keep).unwrap();
                    gone += known.len() - keep;
                }
            }
        }
        gone
    }
}
