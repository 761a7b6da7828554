//! Pairs, medians and spreads.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pair {
    Ours,
    Raw,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure(f64);

impl Figure {
    pub(crate) fn rate(count: u64, taken: Duration) -> Self {
        Self(count as f64 / taken.as_secs_f64())
    }

    pub(crate) fn cost(value: f64) -> Self {
        Self(value)
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    json: bool,
    pub(crate) quick: bool,
    pairs: usize,
    names: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            json: false,
            quick: false,
            pairs: 5,
            names: Vec::new(),
        };
        for arg in args {
            match arg.as_str() {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                // What `cargo bench` adds.
                "--bench" => {}
                _ => options.names.push(arg),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty()
            || self
                .names
                .iter()
                .any(|wanted| name.starts_with(wanted.as_str()))
    }
}

#[derive(Debug)]
pub(crate) struct Report<'a> {
    options: &'a Options,
    measured: usize,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl<'a> Report<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        if !options.json {
            println!(
                "{:<20} {:>12} {:>12} {:>7}  {:<13} unit",
                "figure", "ours", "raw", "ratio", "spread"
            );
        }
        Self {
            options,
            measured: 0,
        }
    }

    /// Measures ours and raw in turn and prints the median of each, of their ratios, and
    /// the smallest and largest ratio.
    pub(crate) async fn measure(
        &mut self,
        name: &str,
        unit: &str,
        run: impl AsyncFn(Pair) -> Figure,
    ) {
        if !self.options.wants(name) {
            return;
        }
        self.measured += 1;
        let (mut ours, mut raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.pairs {
            let one = run(Pair::Ours).await.0;
            let other = run(Pair::Raw).await.0;
            ours.push(one);
            raw.push(other);
            ratios.push(one / other);
        }
        let (ours, raw, ratio) = (median(&mut ours), median(&mut raw), median(&mut ratios));
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        if self.options.json {
            println!(
                "{}",
                serde_json::json!({
                    "name": name, "ours": ours, "raw": raw, "ratio": ratio, "unit": unit,
                    "spread": [least, most],
                })
            );
        } else {
            let digits = if ours < 100.0 { 3 } else { 0 };
            println!(
                "{name:<20} {ours:>12.digits$} {raw:>12.digits$} {ratio:>7.2}  {least:.2} – {most:.2}   {unit}"
            );
        }
    }

    pub(crate) fn finish(self) {
        assert!(self.measured > 0, "no figure has such a name");
    }
}
