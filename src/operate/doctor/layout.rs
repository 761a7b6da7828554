//! Findings on the migrations of a namespace.

use crate::domain::{Migration, MigrationState, Placement};
use crate::operate::doctor::finding::{Finding, Severity};

pub(super) fn judge(all: &[Migration], placement: Option<Placement>) -> Finding {
    let check = "layout";
    let find = |state: fn(&MigrationState) -> bool| all.iter().find(|one| state(&one.state));
    let problem = |one: &Migration, what: &str| {
        let what = format!("migration {:04} {what}", one.number);
        Finding::new(Severity::Problem, check, what).because("services refuse to start")
    };
    if let Some(one) = find(|state| *state == MigrationState::Unknown) {
        return problem(one, "was applied by a newer version").advise("update Redstart");
    }
    if let Some(one) = find(|state| *state == MigrationState::Changed) {
        return problem(one, "was applied in another form")
            .advise("use the version that applied it");
    }
    if let Some(one) = find(|state| *state == MigrationState::Dirty) {
        return problem(one, "was begun and not finished")
            .advise("run `redstart migrate up --repair`");
    }
    let applied = all
        .iter()
        .filter(|one| matches!(one.state, MigrationState::Applied(_)))
        .count();
    match find(|state| *state == MigrationState::Pending) {
        None => {
            let placement = placement.unwrap_or_default();
            Finding::ok(
                check,
                format!("all migrations applied, placement {placement}"),
            )
        }
        Some(_) if applied == 0 => Finding::ok(
            check,
            "the namespace does not exist yet; the first service creates it",
        ),
        Some(one) => problem(one, "is pending").advise("run `redstart migrate up`"),
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
        judge(&all, None).severity
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
