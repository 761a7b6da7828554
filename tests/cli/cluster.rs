//! The tool on a Redis Cluster.

use redstart::Namespace;
use redstart::store::{GroupAt, Partition, StartFrom};
use redstart::topics::TopicSettings;
use redstart::{Container, Envelope, Topic};

use crate::run::{redstart, run, run_with};
use crate::support::cluster::Cluster;
use crate::support::{finish, group, topic};

/// The log of a partition in namespace `shop`.
fn log(topic: &Topic, number: u16) -> String {
    match number {
        0 => format!("{{shop:{topic}}}:log"),
        _ => format!("{{shop:{topic}/{number}}}:log"),
    }
}

/// The primary of a partition, by its number in the cluster.
fn primary_of(cluster: &Cluster, topic: &Topic, number: u16) -> usize {
    cluster.owner(0, cluster.slot(&log(topic, number)))
}

/// A topic whose partitions lie as wanted.
fn placed(name: &str, lies: impl Fn(&Topic) -> bool) -> Topic {
    let mut names = (0..1_000).map(|n| topic(&format!("{name}{n}")));
    names.find(lies).expect("a topic that lies so")
}

fn numbers(of: &[u16]) -> String {
    let all: Vec<String> = of.iter().map(u16::to_string).collect();
    match all.len() {
        1 => format!("(partition {})", all[0]),
        _ => format!("(partitions {})", all.join(", ")),
    }
}

/// Creates a topic with this number of partitions, and the group `billing`.
async fn create(container: &Container, topic: &Topic, partitions: u16) {
    let settings = TopicSettings::default().with_partitions(partitions);
    container.topics().create(topic, settings).await.unwrap();
    let at = GroupAt::of(topic, &group("billing"));
    let store = container.store();
    let made = store.topics().create_group(&at, StartFrom::Beginning).await;
    made.unwrap();
}

#[test]
fn the_demo_and_the_commands_work_on_a_cluster() {
    let cluster = Cluster::start(3, 0);
    let url = cluster.url();
    let told = run(Some(&url), &["demo", "--json", "--messages", "90"]).ok();
    let told = told.json();
    assert_eq!(
        (&told["lost"], &told["dead"]),
        (&0.into(), &3.into()),
        "{told}"
    );
    let namespace = told["namespace"].as_str().unwrap();

    let on = |args: &[&str]| {
        let all: Vec<&str> = ["--namespace", namespace]
            .iter()
            .chain(args)
            .copied()
            .collect();
        run(Some(&url), &all)
    };
    let groups = on(&["groups", "--json"]).ok().json();
    assert_eq!(
        (&groups[0]["dead"], &groups[0]["lag"]),
        (&3.into(), &0.into())
    );
    let topic = groups[0]["topic"].as_str().unwrap();
    let args = ["--namespace", namespace, "publish", topic, "--type", "tick"];
    run_with(redstart(Some(&url), &args), "1\n").ok();
    let doctor = on(&["doctor", "--json"]);
    // A finding that is the same for all nodes stands once.
    let coverage = doctor.out.matches("cluster-require-full-coverage is yes");
    assert_eq!(coverage.count(), 1, "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tool_shows_the_primary_of_each_partition() {
    const PARTITIONS: u16 = 6;

    let cluster = Cluster::start(3, 0);
    let url = cluster.url();
    let shop = Namespace::new("shop").unwrap();
    let container = cluster.builder(&shop).connect().await.unwrap();
    let (even, uneven) = (topic("even"), topic("uneven"));
    let single = topic("single");
    for (topic, count) in [(&even, PARTITIONS), (&uneven, PARTITIONS), (&single, 1)] {
        create(&container, topic, count).await;
    }
    finish(container).await;
    // The slots of a topic's partitions are spread by themselves, but an operator may move them.
    for number in 0..PARTITIONS - 1 {
        let from = primary_of(&cluster, &uneven, number);
        if from != 0 {
            cluster.move_slot(cluster.slot(&log(&uneven, number)), from, 0);
        }
    }
    let address = |topic: &Topic, number: u16| {
        let primary = primary_of(&cluster, topic, number);
        format!("127.0.0.1:{}", cluster.nodes[primary].port())
    };

    let topics = run(Some(&url), &["topics", "--json"]).ok().json();
    let topics = topics.as_array().unwrap();
    assert_eq!(topics.len(), 3);
    for (listed, topic) in topics.iter().zip([&even, &single, &uneven]) {
        let primaries = listed["primaries"].as_array().unwrap();
        assert_eq!(listed["topic"], topic.as_str());
        let count = if *topic == single { 1 } else { PARTITIONS };
        let expected = (0..count).map(|number| address(topic, number));
        assert!(expected.eq(primaries.iter().map(|one| one.as_str().unwrap().to_owned())));
    }
    let table = run(Some(&url), &["topics"]).ok().out;
    let of_even = table.lines().find(|line| line.starts_with(even.as_str()));
    assert!(
        table.lines().next().unwrap().ends_with("primaries"),
        "{table}"
    );
    assert!(of_even.unwrap().contains(" on 127.0.0.1:"), "{table}");
    assert!(table.contains(&address(&single, 0)), "{table}");

    let groups = ["groups", even.as_str(), "--partitions"];
    let parts = run(Some(&url), &[&groups[..], &["--json"]].concat());
    let parts = parts.ok().json();
    for (part, number) in parts.as_array().unwrap().iter().zip(0..PARTITIONS) {
        assert_eq!(part["partition"], number);
        assert_eq!(part["primary"], address(&even, number));
    }
    let table = run(Some(&url), &groups).ok().out;
    for (line, number) in table.lines().skip(1).zip(0..PARTITIONS) {
        assert!(line.ends_with(&address(&even, number)), "{table}");
    }

    let told = run(Some(&url), &["doctor", "--json"]).json();
    let findings = told["findings"].as_array().unwrap().iter();
    let named = findings.filter(|one| one["check"] == "partitions");
    let named: Vec<&str> = named.map(|one| one["what"].as_str().unwrap()).collect();
    let [named] = named[..] else {
        panic!("{told}");
    };
    assert!(named.starts_with(&format!("{uneven}: ")), "{named}");
    assert!(named.ends_with(", one of 3 primaries"), "{named}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_checks_what_other_primaries_hold_while_one_is_down() {
    const PARTITIONS: u16 = 6;

    let mut cluster = Cluster::start_with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let shop = Namespace::new("shop").unwrap();
    let container = cluster.builder(&shop).connect().await.unwrap();
    let victim = (cluster.owner(0, cluster.slot("{shop}:schema")) + 1) % 3;
    let on_victim = |topic: &Topic| -> Vec<u16> {
        let all = 0..PARTITIONS;
        all.filter(|at| primary_of(&cluster, topic, *at) == victim)
            .collect()
    };
    let is_down = |topic: &Topic| primary_of(&cluster, topic, 0) == victim;
    let (down, up) = (placed("down", is_down), placed("up", |one| !is_down(one)));
    // Partition 0 knows the number of partitions, and the members of owned groups.
    let headless = placed("headless", |one| {
        is_down(one) && on_victim(one).len() < PARTITIONS.into()
    });
    let lacking = placed("lacking", |one| !is_down(one) && !on_victim(one).is_empty());
    for (topic, count) in [(&down, 1), (&up, 1), (&headless, 6), (&lacking, 6)] {
        create(&container, topic, count).await;
        let messages: Vec<Envelope> = (0..40)
            .map(|n| Envelope::new("n", &n).unwrap().with_key(n.to_string()))
            .collect();
        for published in container.bus().publish_all(topic, &messages).await {
            published.unwrap();
        }
    }
    for number in 0..PARTITIONS {
        let at = GroupAt {
            partition: Partition::numbered(&headless, number),
            group: group("shipping"),
        };
        let made = container.store();
        let made = made.owners().create(&at, StartFrom::Beginning).await;
        made.unwrap();
    }
    finish(container).await;
    let (of_headless, of_lacking) = (on_victim(&headless), on_victim(&lacking));
    let refusing = 3 - victim - cluster.owner(0, cluster.slot("{shop}:schema"));
    cluster.nodes[victim].kill();
    cluster.nodes[refusing].command::<()>(&["ACL", "SETUSER", "default", "-info"]);

    let told = run(
        Some(&cluster.url()),
        &["doctor", "--json", "--stuck-after", "0s"],
    );
    let told = told.failed(1).json();
    let findings = told["findings"].as_array().unwrap();
    let of = |check: &str, severity: &str| -> Vec<&str> {
        let found = findings.iter();
        let found = found.filter(|one| one["check"] == check && one["severity"] == severity);
        found.map(|one| one["what"].as_str().unwrap()).collect()
    };
    let address = format!("127.0.0.1:{}", cluster.nodes[victim].port());
    let named = format!(
        "{down}, {headless} {}, {lacking} {}",
        numbers(&of_headless),
        numbers(&of_lacking)
    );
    let dead = of("server", "problem");
    let [dead, refused] = dead[..] else {
        panic!("{findings:?}");
    };
    assert!(
        dead.starts_with(&format!("{address} does not answer: ")),
        "{dead}"
    );
    assert!(dead.contains(". It serves 546"), "{dead}");
    assert!(dead.ends_with(&format!(" and holds {named}")), "{dead}");
    let address = format!("127.0.0.1:{}", cluster.nodes[refusing].port());
    assert!(
        refused.starts_with(&format!("{address}: answers and refuses ")),
        "{refused}"
    );
    let unseen = of("server", "unknown").concat() + &of("groups", "unknown").concat();
    for check in ["eviction", "memory", "clock", "backlog", "owners", "keys"] {
        assert!(unseen.contains(check), "{check}: {findings:?}");
    }
    assert!(unseen.contains(&named), "{unseen}");
    assert_eq!(of("writes", "unknown").len(), 1, "{findings:?}");
    // The others are checked, and so are the partitions that they hold.
    for check in ["memory", "clock", "scripts", "layout"] {
        let found = findings.iter().any(|one| one["check"] == check);
        assert!(found, "{check}: {findings:?}");
    }
    let stuck = of("groups", "problem").join("; ");
    for topic in [&up, &headless, &lacking] {
        let stuck_there = stuck.contains(&format!("{topic}/billing: no consumer"));
        assert!(stuck_there, "{topic}: {findings:?}");
    }
    assert!(
        !stuck.contains("shipping"),
        "its members are not known: {stuck}"
    );
    assert!(!stuck.contains("not checked"), "{stuck}");
}

/// The severity and the text of what the doctor says of writes.
fn of_writes(cluster: &Cluster) -> (String, String) {
    let told = run(Some(&cluster.url()), &["doctor", "--json"]).failed(1);
    let told = told.json();
    let findings = told["findings"].as_array().unwrap();
    let mut of_writes = findings.iter().filter(|one| one["check"] == "writes");
    let found = of_writes.next().unwrap_or_else(|| panic!("{told}"));
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    (
        text("severity"),
        format!("{}; {}", text("what"), text("why")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tries_writes_while_the_primary_of_the_topics_is_down() {
    let mut cluster = Cluster::start_with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let shop = Namespace::new("shop").unwrap();
    finish(cluster.builder(&shop).connect().await.unwrap()).await;
    let first = cluster.owner(0, cluster.slot("{shop}:schema"));
    let full = (first + 1) % 3;
    cluster.nodes[first].kill();
    let (severity, told) = of_writes(&cluster);
    assert_eq!(severity, "unknown", "{told}");
    assert!(
        told.contains("the primaries that answered accept writes"),
        "{told}"
    );
    cluster.nodes[full].command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let (severity, told) = of_writes(&cluster);
    assert_eq!(severity, "problem", "{told}");
    assert!(told.contains("memory is full"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_the_setting_by_which_a_whole_cluster_stops() {
    // The others notice the death.
    let mut cluster = Cluster::start_with(3, 0, &["--cluster-node-timeout", "2000"]);
    let shop = Namespace::new("shop").unwrap();
    finish(cluster.builder(&shop).connect().await.unwrap()).await;
    let first = cluster.owner(0, cluster.slot("{shop}:schema"));
    cluster.nodes[(first + 1) % 3].kill();
    cluster.until("the cluster to be down", || {
        [first, (first + 2) % 3].iter().all(|node| {
            let info: String = cluster.nodes[*node].command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:fail")
        })
    });
    let (severity, told) = of_writes(&cluster);
    assert_eq!(severity, "problem", "{told}");
    assert!(
        told.contains("cluster-require-full-coverage is yes"),
        "{told}"
    );
    assert!(!told.contains("redis+cluster://"), "{told}");
}
