//! Operators list, edit, export and import dead letters.

use super::Subject;
use super::redrive::everything;
use super::support::{Must as _, Stage, entry, group, new_entry, number, quick};
use crate::domain::{DeadLetter, EntryId, ErrorKind, Group};
use crate::operate::dead_letters::Imported;

/// Lists show the matching dead letters; removals do not shift the pages.
pub async fn a_list_shows_the_matching_dead_letters<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    let letters = stage.dead(20).await;
    let dead = stage.container.dead_letters();
    let even = everything().with_error_pattern(", 0$").must("a filter");
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(&stage.topic, &stage.group, &even, after, 3).await;
        let page = page.must("listing");
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|(id, _)| *id));
        if seen.len() == 3 {
            // Records removed between two pages do not shift them.
            let some = [letters[0].id, seen[1]];
            dead.purge(&stage.topic, &stage.group, &some)
                .await
                .must("purging");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<EntryId> = letters
        .iter()
        .filter(|letter| letter.error.ends_with('0'))
        .map(|letter| letter.id)
        .collect();
    assert_eq!(seen, expected);
    let newest = dead.newest(&stage.topic, &stage.group).await;
    assert_eq!(newest.must("asking"), letters.last().map(|last| last.id));
    drop(failing);
    stage.finish().await;
}

/// Editing is off unless it was enabled.
pub async fn editing_is_off_by_default<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    let letters = stage.dead(1).await;
    let dead = stage.container.dead_letters();
    let edited = dead
        .edit(&stage.topic, &stage.group, letters[0].id, number(7), "ann")
        .await;
    let error = edited.err().must("a refusal");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("REDSTART_DEAD_LETTER_EDITING"),
        "{error}"
    );
    assert_eq!(stage.letters().await, letters);
    drop(failing);
    stage.finish().await;
}

/// An exported dead letter can be imported once, byte for byte.
pub async fn an_export_can_be_imported_once<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(2).await;
    let flaws = [new_entry("json", &b"\xff{"[..]), entry(9)];
    stage.append_entries(&flaws).await;
    let letters = stage
        .until("four dead letters", async || {
            let letters = stage.letters().await;
            (letters.len() == 4).then_some(letters)
        })
        .await;
    let lines: Vec<String> = letters.iter().map(DeadLetter::to_json).collect();
    let read = |line: &String| DeadLetter::from_json(line).must("reading");
    let exported: Vec<DeadLetter> = lines.iter().map(read).collect();
    assert_eq!(exported, letters);

    let dead = stage.container.dead_letters();
    let import = async |group: &Group, letters: &[DeadLetter]| {
        let imported = dead.import(&stage.topic, group, letters, false).await;
        imported.must("importing")
    };
    let here = import(&stage.group, &exported).await;
    assert_eq!(here, [Imported::Present; 4], "they are there");
    let other = group("other");
    let missing = dead.import(&stage.topic, &other, &exported, false).await;
    assert_eq!(missing.err().must("a refusal").kind(), ErrorKind::NotFound);
    stage.create(&other).await;
    let there = import(&other, &exported).await;
    assert!(
        there.iter().all(|one| matches!(one, Imported::New(_))),
        "{there:?}"
    );
    assert_eq!(import(&other, &exported).await, [Imported::Present; 4]);
    for (letter, original) in stage.letters_of(&other).await.iter().zip(&letters) {
        assert_eq!(letter.fields, original.fields, "byte for byte");
        assert_eq!(letter.history, original.history);
        assert_eq!(letter.error, original.error);
        // Into a third store: it is still the same dead letter.
        assert_eq!(letter.group, other);
    }
    drop(failing);
    stage.finish().await;
}
