//! A private PostgreSQL server.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::PATIENCE;

/// Makes the database and serves it until stdin ends, which it does when the test's process dies.
const SERVE: &str = r#"
exec 3<&0 </dev/null
"$0/initdb" -D data -A trust -U postgres -E UTF8 --locale=C --no-sync >initdb.log 2>&1 || exit 1
"$0/postgres" -D data -k "$PWD" -c listen_addresses= -c fsync=off >server.log 2>&1 &
read -r line <&3
kill -QUIT $!
wait
rm -rf data
"#;

/// A running server on a socket in a temporary folder. Dropping it stops the server.
pub(crate) struct Postgres {
    shell: Child,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// # Panics
    ///
    /// When PostgreSQL is missing or does not come up: a failure, never a skip.
    pub(crate) fn start() -> Self {
        let programs = programs().expect("tests/install installs postgresql");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SERVE])
            .arg(&programs)
            .current_dir(folder.path())
            .stdin(Stdio::piped());
        // PostgreSQL refuses to run as root.
        if id(&["-u"]) == 0 {
            let (user, group) = (id(&["-u", "postgres"]), id(&["-g", "postgres"]));
            chown(folder.path(), Some(user), Some(group)).unwrap();
            command.uid(user).gid(group);
        }
        let mut server = Self {
            shell: command.spawn().unwrap(),
            programs,
            folder,
        };
        let until = Instant::now() + PATIENCE;
        while server.try_run("SELECT 1").is_err() {
            let ended = server.shell.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "{}",
                server.logs()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("postgres://postgres@localhost/postgres?host={folder}")
    }

    /// Runs statements and returns their rows.
    pub(crate) fn run(&self, sql: &str) -> String {
        self.try_run(sql).unwrap()
    }

    fn try_run(&self, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", "postgres", "-d", "postgres", "-c", sql])
            .arg("-h")
            .arg(self.folder.path());
        let output = psql.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn logs(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name));
        let logs = ["initdb.log", "server.log"].map(|name| read(name).unwrap_or_default());
        format!("PostgreSQL did not come up: {}", logs.join("\n"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The folder of the server's programs. Debian keeps them out of PATH.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let debian = debian.flatten().map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = debian.chain(std::env::split_paths(&path).collect::<Vec<_>>());
    folders.find(|folder| has(folder, "initdb") && has(folder, "psql"))
}

fn has(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}

/// A number that the program `id` prints.
fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().expect("the user exists")
}
