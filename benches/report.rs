//! Pairs, medians and spreads.

use std::time::Duration;

use crate::options::Options;
use crate::pair::{Figure, Side};

#[derive(Debug)]
pub(crate) struct Report {
    options: Options,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        if !options.json {
            println!(
                "{:<24} {:>12} {:>12} {:>7}  {:<13} unit",
                "figure", "ours", "raw", "ratio", "spread"
            );
        }
        Self {
            options: options.clone(),
        }
    }

    /// Measures both sides in turn, and prints of each figure the median of both, the median
    /// of their ratios, and the smallest and largest ratio.
    pub(crate) async fn measure<const N: usize>(
        &mut self,
        figures: [Figure<'_>; N],
        run: impl AsyncFn(Side) -> [f64; N],
    ) {
        self.measure_pairs(self.options.pairs, figures, run).await;
    }

    /// Measures one pair: enough for what hardly varies, or takes minutes.
    pub(crate) async fn measure_once<const N: usize>(
        &mut self,
        figures: [Figure<'_>; N],
        run: impl AsyncFn(Side) -> [f64; N],
    ) {
        self.measure_pairs(1, figures, run).await;
    }

    async fn measure_pairs<const N: usize>(
        &mut self,
        count: usize,
        figures: [Figure<'_>; N],
        run: impl AsyncFn(Side) -> [f64; N],
    ) {
        if !figures.iter().any(|(name, _)| self.options.wants(name)) {
            return;
        }
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push(match self.options.only {
                Some(side) => {
                    let seen = run(side).await;
                    (seen, seen)
                }
                None => (run(Side::Ours).await, run(Side::Raw).await),
            });
        }
        for (at, (name, unit)) in figures.into_iter().enumerate() {
            if self.options.wants(name) {
                let pairs = pairs.iter().map(|(ours, raw)| (ours[at], raw[at]));
                self.print(name, unit, pairs.collect());
            }
        }
    }

    fn print(&self, name: &str, unit: &str, pairs: Vec<(f64, f64)>) {
        let (mut ours, mut raw): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let mut ratios: Vec<f64> = pairs.iter().map(|(ours, raw)| ours / raw).collect();
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
                "{name:<24} {ours:>12.digits$} {raw:>12.digits$} {ratio:>7.2}  {least:.2} – {most:.2}   {unit}"
            );
        }
    }
}

/// The quantiles of some times, in milliseconds.
pub(crate) fn percentiles<const N: usize>(times: &mut [Duration], quantiles: [f64; N]) -> [f64; N] {
    times.sort();
    quantiles.map(|quantile| {
        let at = (times.len() as f64 * quantile) as usize;
        times[at.min(times.len() - 1)].as_secs_f64() * 1e3
    })
}
