//! Runs the fuzz targets on the corpus: the seeds and the findings of fuzzing. None may panic or hang.

use std::path::Path;

use redstart::testing::hostile::TARGETS;

#[test]
fn the_corpus_does_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (name, target) in TARGETS {
        let mut files = 0;
        for file in std::fs::read_dir(corpus.join(name)).unwrap() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 1, "{name} has a corpus");
    }
}
