//! Scripts and servers that are killed while effects are written: all of a commit is left, or nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::effects::{Scene, bills, done, increment, of_every_kind, publish};
use crate::support::{Server, until};

/// Kills the scripts of a server until it is dropped.
struct Killer(Arc<std::sync::atomic::AtomicBool>);

impl Killer {
    fn of(server: &Server) -> Self {
        let running = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (go_on, mut raw) = (Arc::clone(&running), server.raw());
        std::thread::spawn(move || {
            while go_on.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = redis::cmd("SCRIPT")
                    .arg("KILL")
                    .query::<redis::Value>(&mut raw);
            }
        });
        Self(running)
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn killing_scripts_leaves_whole_commits() {
    let scene = Scene::new(32 * 4).await;
    scene.run(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let killer = Killer::of(&scene.server);
    for call in 0..4 {
        let commits: Vec<_> = (32 * call..32 * (call + 1))
            .map(|at| {
                let keys = (0..100).map(|k| increment(&format!("k{k}")));
                scene.commit_of(at, keys.collect())
            })
            .collect();
        let number = call as u64 + 1;
        let fates = until("a call to be done", async || {
            scene.commit(number, &commits).await.ok()
        })
        .await;
        assert!(done(&fates));
        let sums: Vec<i64> = (0..100)
            .map(|k| scene.server.command(&["GET", &format!("shop:k{k}")]))
            .collect();
        assert_eq!(sums, [32 * (call as i64 + 1); 100]);
    }
    drop(killer);
    assert_eq!(scene.pending(), 0);
}

#[tokio::test]
async fn a_server_that_is_killed_keeps_whole_commits_and_their_answers() {
    let mut scene = Scene::new(60).await;
    for (number, at) in (1..).zip(0..60) {
        let commits = [scene.commit_of(at, vec![publish(&bills()), increment("sum")])];
        if at % 6 == 3 {
            let (store, member) = (Arc::clone(&scene.store), scene.member.clone());
            let sent = commits.clone();
            let sending =
                tokio::spawn(async move { store.effects().commit(&member, number, &sent).await });
            tokio::time::sleep(Duration::from_micros(u64::from(fastrand::u16(0..3000)))).await;
            scene.server.restart();
            let _ = sending.await.unwrap();
        }
        let fates = until("the call to be answered", async || {
            scene.commit(number, &commits).await.ok()
        })
        .await;
        assert!(done(&fates), "{fates:?}");
    }
    let sum: i64 = scene.server.command(&["GET", "shop:sum"]);
    let length: i64 = scene.server.command(&["XLEN", "{shop:bills}:log"]);
    assert_eq!((sum, length, scene.pending()), (60, 60, 0));
}

#[tokio::test]
async fn an_append_only_file_that_ends_inside_a_commit_has_nothing_of_it() {
    let mut scene = Scene::new(1).await;
    let file = || {
        let files = std::fs::read_dir(scene.server.folder().join("appendonlydir")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let path = paths.find(|path| path.to_string_lossy().ends_with(".incr.aof"));
        path.unwrap()
    };
    let path = file();
    let before = std::fs::metadata(&path).unwrap().len();
    let state = scene.facts();
    let commits = [scene.commit_of(0, of_every_kind())];
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
    let written = scene.facts();
    scene.server.kill();
    let whole = std::fs::read(&path).unwrap();
    let after = whole.len() as u64;
    assert!(after > before + 200, "the commit is in the file");
    let cuts = (before..after).step_by(23).chain([after]);
    for cut in cuts {
        std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        scene.server.start_again();
        let expected = if cut == after { &written } else { &state };
        assert!(
            scene.facts() == *expected,
            "cut at {cut} of {before} to {after}"
        );
        scene.server.kill();
    }
}
