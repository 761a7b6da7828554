//! The mutants, by the part that they break.

mod attempts;
mod console;
mod effects;
mod hold_back;
mod intake;
mod later;
mod leases;
mod owned;
mod partitions;
mod publishing;
mod settling;
mod shutdown;
mod values;

use crate::mutant::Mutant;

pub(crate) fn all() -> Vec<Mutant> {
    let lists = [
        settling::MUTANTS,
        leases::MUTANTS,
        attempts::MUTANTS,
        intake::MUTANTS,
        shutdown::MUTANTS,
        publishing::MUTANTS,
        values::MUTANTS,
        effects::MUTANTS,
        hold_back::MUTANTS,
        later::MUTANTS,
        partitions::MUTANTS,
        console::MUTANTS,
        owned::MUTANTS,
    ];
    lists.concat()
}
