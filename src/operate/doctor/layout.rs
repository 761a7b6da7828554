//! What the state of a namespace's migrations means.

use crate::domain::{Migration, MigrationState};
use crate::operate::doctor::{Finding, Severity};

pub(super) fn judge(all: &[Migration]) -> Finding {
    let check = "layout";
    let find = |state: fn(&MigrationState) -> bool| all.iter().find(|one| state(&one.state));
    let trouble = |one: &Migration, what: &str| {
        let what = format!("migration {:04} {what}", one.number);
        Finding::new(Severity::Problem, check, what).because("services refuse to start")
    };
    if let Some(one) = find(|state| *state == MigrationState::Unknown) {
        return trouble(one, "was applied by a newer version").advise("update redstart");
    }
    if let Some(one) = find(|state| *state == MigrationState::Changed) {
        return trouble(one, "was applied in another form").advise("use the version that did");
    }
    if let Some(one) = find(|state| *state == MigrationState::Dirty) {
        return trouble(one, "was begun and not finished")
            .advise("run `redstart migrate up --repair`");
    }
    let applied = all
        .iter()
        .filter(|one| matches!(one.state, MigrationState::Applied(_)))
        .count();
    match find(|state| *state == MigrationState::Pending) {
        None => Finding::ok(check, "all migrations applied"),
        Some(_) if applied == 0 => {
            Finding::ok(check, "nothing here yet; the first service sets it up")
        }
        Some(one) => trouble(one, "is pending").advise("run `redstart migrate up`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn level(states: &[MigrationState]) -> Severity {
        let all: Vec<Migration> = (1..)
            .zip(states)
            .map(|(number, state)| Migration {
                number,
                name: String::new(),
                state: state.clone(),
            })
            .collect();
        judge(&all).severity
    }

    #[test]
    fn a_layout_is_ok_when_a_service_would_start_on_it() {
        use MigrationState::{Applied, Changed, Dirty, Pending, Unknown};
        let applied = Applied(Timestamp::from_millis(0).unwrap());
        assert_eq!(level(std::slice::from_ref(&applied)), Severity::Ok);
        assert_eq!(level(&[Pending]), Severity::Ok);
        for bad in [Pending, Dirty, Changed, Unknown] {
            assert_eq!(level(&[applied.clone(), bad]), Severity::Problem);
        }
        assert_eq!(level(&[Dirty]), Severity::Problem);
    }
}
