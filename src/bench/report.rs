//! Figures and comparisons, gathered over rounds, shown as medians.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::load::Measured;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
    comparisons: Vec<Comparison>,
}

/// The quantiles of latency that are told, by their names.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    per_second: Vec<f64>,
    /// Of each of the quantiles, in microseconds.
    micros: [Vec<f64>; QUANTILES.len()],
    /// What one operation took of the processor, where that was measured.
    cpu_micros: Vec<f64>,
}

#[derive(Debug)]
struct Comparison {
    name: String,
    expected: Expected,
    rounds: Vec<f64>,
}

/// What a comparison is expected to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    AtLeast(f64),
    AtMost(f64),
    /// Told without a promise.
    Nothing,
}

impl Expected {
    fn sign(self) -> &'static str {
        match self {
            Self::AtLeast(_) => ">=",
            Self::AtMost(_) => "<=",
            Self::Nothing => "none",
        }
    }

    fn bound(self) -> Option<f64> {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => Some(bound),
            Self::Nothing => None,
        }
    }

    /// The round that is furthest from what is expected.
    fn worst(self, rounds: &[f64]) -> f64 {
        let rounds = rounds.iter().copied();
        match self {
            Self::AtMost(_) => rounds.fold(0.0, f64::max),
            Self::AtLeast(_) | Self::Nothing => rounds.fold(f64::INFINITY, f64::min),
        }
    }
}

impl Figure {
    fn cpu(&self) -> Option<f64> {
        (!self.cpu_micros.is_empty()).then(|| median(&self.cpu_micros))
    }
}

impl Report {
    /// One round's figure; gives back its rate.
    pub(super) fn figure(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        measured: &Measured,
    ) -> f64 {
        let name = name.into();
        let index = self.figures.iter().position(|figure| figure.name == name);
        let index = index.unwrap_or_else(|| {
            let (per_second, micros) = (Vec::new(), [const { Vec::new() }; QUANTILES.len()]);
            self.figures.push(Figure { name, unit, per_second, micros, cpu_micros: Vec::new() });
            self.figures.len() - 1
        });
        let rate = measured.per_second();
        if let Some(figure) = self.figures.get_mut(index) {
            figure.per_second.push(rate);
            for (rounds, (_, quantile)) in figure.micros.iter_mut().zip(QUANTILES) {
                rounds.push(measured.micros_at(quantile));
            }
            figure.cpu_micros.extend(measured.cpu_micros());
        }
        rate
    }

    /// One round's ratio, and what it is expected to be.
    pub(super) fn ratio(
        &mut self,
        name: impl Into<String>,
        expected: Expected,
        ours: f64,
        baseline: f64,
    ) {
        let ratio = if baseline > 0.0 { ours / baseline } else { 0.0 };
        self.amount(name, expected, ratio);
    }

    /// One round's amount of what its name says, and what that is expected to be.
    pub(super) fn amount(&mut self, name: impl Into<String>, expected: Expected, amount: f64) {
        let name = name.into();
        match self.comparisons.iter_mut().find(|known| known.name == name) {
            Some(known) => known.rounds.push(amount),
            None => self.comparisons.push(Comparison { name, expected, rounds: vec![amount] }),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |columns: [&str; 6]| {
            let [name, rate, p50, p99, p999, cpu] = columns;
            let row = format!("{name:<66} {rate:>16} {p50:>9} {p99:>9} {p999:>9} {cpu:>8}");
            // Writing to a string cannot fail.
            writeln!(text, "{}", row.trim_end()).ok();
        };
        line(["median of the rounds", "per second", "p50 ms", "p99 ms", "p99.9 ms", "CPU us"]);
        for figure in &self.figures {
            let rate = format!("{:.0} {}", median(&figure.per_second), figure.unit);
            let [p50, p99, p999] =
                figure.micros.each_ref().map(|it| format!("{:.2}", median(it) / 1_000.0));
            let cpu = figure.cpu();
            let cpu = cpu.map_or_else(String::new, |micros| format!("{micros:.2}"));
            line([&figure.name, &rate, &p50, &p99, &p999, &cpu]);
        }
        line([""; 6]);
        line(["median of the same rounds, ours / baseline", "ratio", "expected", "worst", "", ""]);
        for it in &self.comparisons {
            let bound = it.expected.bound().map_or_else(String::new, |bound| format!(" {bound}"));
            let expected = format!("{}{bound}", it.expected.sign());
            let worst = format!("{:.2}", it.expected.worst(&it.rounds));
            line([&it.name, &format!("{:.2}", median(&it.rounds)), &expected, &worst, "", ""]);
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let figure = |figure: &Figure| {
            let [p50, p99, p999] = figure.micros.each_ref().map(|it| median(it));
            let json = serde_json::json!({
                "unit": figure.unit,
                "per_second": median(&figure.per_second),
                "p50_micros": p50,
                "p99_micros": p99,
                "p999_micros": p999,
                "cpu_micros": figure.cpu(),
                "rounds_per_second": figure.per_second,
            });
            (figure.name.clone(), json)
        };
        let comparison = |it: &Comparison| {
            let json = serde_json::json!({
                "median": median(&it.rounds),
                "expected": it.expected.bound(),
                "is_expected_to_be": it.expected.sign(),
                "rounds": it.rounds,
            });
            (it.name.clone(), json)
        };
        let figures: BTreeMap<_, _> = self.figures.iter().map(figure).collect();
        let ratios: BTreeMap<_, _> = self.comparisons.iter().map(comparison).collect();
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

    #[test]
    fn the_worst_round_is_on_the_other_side_of_the_bound() {
        let mut report = Report::default();
        for round in [2.0, 1.0, 3.0] {
            report.ratio("fast", Expected::AtLeast(1.5), round, 1.0);
            report.amount("KiB", Expected::AtMost(1.5), round);
            report.ratio("whatever", Expected::Nothing, round, 0.0);
        }
        let table = report.table();
        let cells: Vec<Vec<_>> =
            table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells[0], ["fast", "2.00", ">=", "1.5", "1.00"]);
        assert_eq!(cells[1], ["KiB", "2.00", "<=", "1.5", "3.00"]);
        assert_eq!(cells[2], ["whatever", "0.00", "none", "0.00"]);
    }
}
