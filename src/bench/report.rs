//! Figures and ratios, gathered over rounds, shown as medians.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::load::Measured;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    per_second: Vec<f64>,
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

#[derive(Debug)]
struct Ratio {
    name: &'static str,
    expected: f64,
    rounds: Vec<f64>,
}

impl Report {
    /// One round's figure; gives back its rate.
    pub(super) fn figure(
        &mut self,
        name: &'static str,
        unit: &'static str,
        measured: &Measured,
    ) -> f64 {
        let index = self.figures.iter().position(|figure| figure.name == name);
        let index = index.unwrap_or_else(|| {
            let empty = Vec::new;
            let (per_second, p50_micros, p99_micros) = (empty(), empty(), empty());
            self.figures.push(Figure { name, unit, per_second, p50_micros, p99_micros });
            self.figures.len() - 1
        });
        let rate = measured.per_second();
        if let Some(figure) = self.figures.get_mut(index) {
            let quantile = |at| {
                #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                let micros = measured.latency.value_at_quantile(at) as f64;
                micros
            };
            figure.per_second.push(rate);
            figure.p50_micros.push(quantile(0.5));
            figure.p99_micros.push(quantile(0.99));
        }
        rate
    }

    /// One round's ratio, and what it is expected to be at least; 0 = nothing.
    pub(super) fn ratio(&mut self, name: &'static str, expected: f64, ours: f64, baseline: f64) {
        let ratio = if baseline > 0.0 { ours / baseline } else { 0.0 };
        match self.ratios.iter_mut().find(|known| known.name == name) {
            Some(known) => known.rounds.push(ratio),
            None => self.ratios.push(Ratio { name, expected, rounds: vec![ratio] }),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |columns: [&str; 4]| {
            let [name, rate, p50, p99] = columns;
            // Writing to a string cannot fail.
            writeln!(text, "{name:<58} {rate:>16} {p50:>10} {p99:>10}").ok();
        };
        line(["median of the rounds", "per second", "p50 ms", "p99 ms"]);
        for figure in &self.figures {
            let rate = format!("{:.0} {}", median(&figure.per_second), figure.unit);
            let millis = |micros: &[f64]| format!("{:.2}", median(micros) / 1_000.0);
            let (p50, p99) = (millis(&figure.p50_micros), millis(&figure.p99_micros));
            line([figure.name, &rate, &p50, &p99]);
        }
        line(["", "", "", ""]);
        line(["median ratio in the same round", "ratio", "expected", "lowest"]);
        for ratio in &self.ratios {
            let lowest = ratio.rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let (shown, expected) = (format!("{:.2}", median(&ratio.rounds)), ratio.expected);
            let expected =
                if expected > 0.0 { format!(">= {expected}") } else { "none".to_owned() };
            line([ratio.name, &shown, &expected, &format!("{lowest:.2}")]);
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let figures: BTreeMap<_, _> = self
            .figures
            .iter()
            .map(|figure| {
                let json = serde_json::json!({
                    "unit": figure.unit,
                    "per_second": median(&figure.per_second),
                    "p50_micros": median(&figure.p50_micros),
                    "p99_micros": median(&figure.p99_micros),
                    "rounds_per_second": figure.per_second,
                });
                (figure.name, json)
            })
            .collect();
        let ratios: BTreeMap<_, _> = self
            .ratios
            .iter()
            .map(|ratio| {
                let json = serde_json::json!({
                    "median": median(&ratio.rounds),
                    "expected": ratio.expected,
                    "rounds": ratio.rounds,
                });
                (ratio.name, json)
            })
            .collect();
        format!("{:#}\n", serde_json::json!({ "figures": figures, "ratios": ratios }))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(value), 1) => *value,
        (Some(upper), _) => sorted.get(middle - 1).map_or(*upper, |lower| (lower + upper) / 2.0),
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        for (values, expected) in
            [(&[][..], 0.0), (&[3.0], 3.0), (&[1.0, 9.0], 5.0), (&[9.0, 1.0, 2.0], 2.0)]
        {
            assert!((median(values) - expected).abs() < f64::EPSILON, "{values:?}");
        }
    }
}
