//! The guide *The console*: its unit, its manifest and its proxy work as they stand there.

#![cfg(feature = "console")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;

use crate::print::checked;
use crate::production::parse;
use crate::run::{line_with, redstart, run, run_with};
use crate::support::{PATIENCE, Server};

const PAGE: &str = include_str!("../../src/docs/console.md");

/// The block that has a text in it.
fn block(part: &str) -> &'static str {
    let mut blocks = PAGE.split("\n```").skip(1).step_by(2);
    let found = blocks.find(|block| block.contains(part));
    let found = found.unwrap_or_else(|| panic!("no block with {part}"));
    found.split_once('\n').unwrap().1
}

/// A console that runs with words of the guide.
struct Console {
    process: Child,
    port: u16,
    told: String,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Console {
    /// Runs it on a free port, which the guide cannot name.
    fn start(server: &Server, args: &[&str]) -> Self {
        let mut command = redstart(Some(&server.url()), args);
        command.env("REDSTART_CONSOLE_LISTEN", "127.0.0.1:0");
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let told = line_with(&mut lines, "http://");
        let address = told.split_whitespace().next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            process,
            port,
            told,
        }
    }

    /// The whole answer to a request with these headers.
    fn get(&self, path: &str, headers: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        ask(stream, path, headers)
    }
}

fn ask(mut stream: TcpStream, path: &str, headers: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: ops.example.org\r\n{headers}connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A users file with the operator ann, whose password is `secret`, made as the guide says.
fn users(folder: &Path) -> String {
    let words = ["console", "hash-password"];
    assert!(PAGE.contains(&format!("redstart {} < password.txt", words.join(" "))));
    let hash = run_with(redstart(None, &words), "secret\n").ok().out;
    let form = block("bob:viewer:").lines().next().unwrap();
    let (who, _) = form.split_once("$argon2id").unwrap();
    let file = folder.join("users");
    fs::write(&file, format!("{who}{hash}")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// ann:secret
const ANN: &str = "authorization: Basic YW5uOnNlY3JldA==\r\n";

#[test]
#[cfg(target_os = "linux")]
fn systemd_finds_no_fault_in_the_unit_and_its_command_runs() {
    let unit = block("[Service]");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redstart-console.service");
    assert!(unit.contains("/etc/systemd/system/redstart-console.service"));
    let tool = env!("CARGO_BIN_EXE_redstart");
    fs::write(&file, unit.replace("/usr/bin/redstart", tool)).unwrap();
    let args = ["verify", "--man=no", file.to_str().unwrap()];
    let ran = checked(folder.path(), "systemd-analyze", &args).ok();
    let about = ran
        .err
        .lines()
        .filter(|line| line.contains("redstart-console"));
    assert_eq!(about.collect::<Vec<_>>(), [""; 0], "{ran:?}");

    // The credential's folder is that of the manager.
    let credential = unit
        .lines()
        .find_map(|line| line.strip_prefix("LoadCredential="));
    assert_eq!(credential, Some("users:/etc/redstart/users"));
    users(folder.path());
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/redstart "));
    let command = command
        .unwrap()
        .replace("%d", folder.path().to_str().unwrap());
    let words: Vec<&str> = command.split_whitespace().collect();
    let server = Server::start();
    let console = Console::start(&server, &words);
    assert!(
        console.get("/", "").starts_with("HTTP/1.1 401"),
        "{}",
        console.told
    );
    assert!(console.get("/", ANN).contains("ann · operator"));
}

#[test]
fn the_arguments_and_the_probes_of_the_manifest_work() {
    let manifest = parse(block("kind: Deployment"));
    let deployment = manifest.get(0).unwrap_or(&manifest);
    let (labels, wanted) = (
        &deployment["spec"]["template"]["metadata"]["labels"],
        &deployment["spec"]["selector"]["matchLabels"],
    );
    assert_eq!(labels, wanted);
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let names: Vec<&str> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["REDSTART_REDIS_URL", "REDSTART_NAMESPACE"]);
    // The volume is where the argument looks for the file.
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let own = users(folder.path());
    let in_pod = format!("{}/users", mount["mountPath"].as_str().unwrap());
    let args = container["args"].as_array().unwrap().iter().map(|one| {
        let word = one.as_str().unwrap();
        match word {
            word if word == in_pod => own.clone(),
            // The port of the guide may be taken on this machine.
            word if word == format!("0.0.0.0:{port}") => "0.0.0.0:0".to_owned(),
            word => word.to_owned(),
        }
    });
    let args: Vec<String> = args.collect();
    assert!(
        args.contains(&own) && args.contains(&"0.0.0.0:0".to_owned()),
        "{args:?}"
    );
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let server = Server::start();
    let console = Console::start(&server, &words);
    for probe in ["livenessProbe", "readinessProbe"] {
        let probe = &container[probe]["httpGet"];
        assert_eq!(probe["port"], port);
        let answer = console.get(probe["path"].as_str().unwrap(), "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(
        console.get("/", "").starts_with("HTTP/1.1 401"),
        "{}",
        console.told
    );
    assert!(console.get("/", ANN).contains("ann · operator"));
}

#[test]
fn the_proxy_of_the_guide_names_the_visitors_of_its_console() {
    let settings = block("# oauth2-proxy.cfg");
    let setting = |name: &str| {
        let start = format!("{name} = ");
        settings.lines().find_map(|line| line.strip_prefix(&start))
    };
    // The headers that this setting adds to a request, in place of those of the browser.
    assert_eq!(setting("pass_user_headers"), Some("true"));
    let added = [
        "X-Forwarded-User",
        "X-Forwarded-Groups",
        "X-Forwarded-Email",
        "X-Forwarded-Preferred-Username",
    ];
    let command = block("redstart console --user-header").replace("\\\n", " ");
    let mut words = command.split_whitespace().skip(1).collect::<Vec<_>>();
    let value = |name: &str| words[words.iter().position(|word| *word == name).unwrap() + 1];
    let (user, groups, operators) = (
        value("--user-header"),
        value("--groups-header"),
        value("--operator-group"),
    );
    assert!(
        added.contains(&user) && added.contains(&groups),
        "{command}"
    );
    // The proxy asks the address on which the console listens by default.
    let help = run(None, &["console", "--help"]).ok().out;
    let upstream = setting("upstreams")
        .unwrap()
        .trim_start_matches("[\"http://");
    assert!(
        help.contains(&format!("[default: {}]", upstream.trim_end_matches("/\"]"))),
        "{help}"
    );

    words.retain(|word| !word.is_empty());
    let server = Server::start();
    let console = Console::start(&server, &words);
    assert!(
        console.told.ends_with("(read and write, log-in by proxy)"),
        "{}",
        console.told
    );
    let as_proxy = |who: &str, groups_of: &str| {
        let email = format!("X-Forwarded-Email: {who}@example.org\r\n");
        console.get(
            "/",
            &format!("{user}: {who}\r\n{groups}: {groups_of}\r\n{email}"),
        )
    };
    assert!(as_proxy("ann", &format!("dev,{operators}")).contains("ann · operator"));
    assert!(as_proxy("bob", "dev").contains("bob · viewer"));
    assert!(console.get("/", "").starts_with("HTTP/1.1 403"));
    let twice = format!("{user}: ann\r\n{user}: bob\r\n{groups}: {operators}\r\n");
    assert!(console.get("/", &twice).starts_with("HTTP/1.1 403"));
    // Every other address is refused, whatever it says: 127.0.0.2 is this machine, too.
    #[cfg(target_os = "linux")]
    {
        let from: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], console.port));
        let forged = format!("{user}: ann\r\n{groups}: {operators}\r\n");
        let stream = connect(from, to);
        assert!(ask(stream, "/", &forged).starts_with("HTTP/1.1 403"));
    }
}

/// Connects from an address of this machine.
#[cfg(target_os = "linux")]
#[tokio::main(flavor = "current_thread")]
async fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(from).unwrap();
    let stream = socket.connect(to).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn each_task_of_operators_names_a_test_that_exists() {
    let page = include_str!("../../src/docs/operators.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rows = 0;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| #"))
    {
        rows += 1;
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, state, check] = cells[..] else {
            panic!("{row}");
        };
        assert_eq!(number, rows.to_string());
        let named: Vec<&str> = check.split('`').skip(1).step_by(2).collect();
        // What is not there has no test, and everything else has one or says that it has none.
        let is_open = state == "no" || state.starts_with("no:") || check.starts_with("no test");
        assert_eq!(named.is_empty(), is_open, "{row}");
        if let [file, name, ..] = named[..] {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let is_there =
                text.contains(&format!("fn {name}(")) || text.contains(&format!("test(\"{name}\""));
            assert!(is_there, "{file} has no test {name}");
        }
    }
    assert_eq!(rows, 50);
}
