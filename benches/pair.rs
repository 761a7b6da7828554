//! The two sides of a pair of runs, and the figures that a pair yields.

/// Which side of a pair runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Side {
    Ours,
    /// The raw loop, or another run to compare with.
    Raw,
}

/// A figure's name and unit.
pub(crate) type Figure<'a> = (&'a str, &'a str);
