//! The tool on a Redis Cluster.

use crate::run::{redstart, run, run_with};
use crate::support::cluster::Cluster;

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
