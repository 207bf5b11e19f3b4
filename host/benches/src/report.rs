//! What was measured: as a table for people, as JSON for programs and back.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::Result;

/// What is told of latencies, each with its quantile.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// [`PERCENTILES`], in microseconds.
pub type Latencies = [f64; PERCENTILES.len()];

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// How much.
    pub value: f64,
    /// Of the operations, where they were taken.
    pub latencies: Option<Latencies>,
}

impl Measure {
    /// A figure alone.
    pub fn new(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Measure { name: name.into(), unit: unit.to_owned(), value, latencies: None }
    }

    /// With these latencies, in nanoseconds.
    pub fn with(self, latencies: &Histogram<u64>) -> Self {
        let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Measure { latencies: Some(PERCENTILES.map(|(_, quantile)| micros(quantile))), ..self }
    }

    /// For the process that asked for it.
    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "unit": self.unit, "value": self.value, "latencies": self.latencies})
    }

    /// Reads the same.
    pub fn from_json(json: &Value) -> Result<Measure> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let parts = (text("name"), text("unit"), json["value"].as_f64());
        let (Some(name), Some(unit), Some(value)) = parts else {
            return Err(format!("not a measure: {json}").into());
        };
        let latencies = json["latencies"].as_array().and_then(|values| {
            let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
            values.try_into().ok()
        });
        Ok(Measure { name, unit, value, latencies })
    }
}

/// Figures of several subjects, each from some runs.
#[derive(Clone, Debug)]
pub struct Report {
    subjects: Vec<String>,
    /// The subject that others are compared with.
    baseline: Option<usize>,
    rows: Vec<Row>,
}

/// A figure of all subjects.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Of each subject.
    pub cells: Vec<Cell>,
}

/// A figure of one subject.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The value of each run.
    values: Vec<f64>,
    latencies: Vec<Latencies>,
}

impl Cell {
    /// The value in the middle; `None` without a run.
    pub fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    /// The median of each percentile.
    pub fn latencies(&self) -> Option<Latencies> {
        let of = |index| median(&self.latencies.iter().map(|run: &Latencies| run[index]).collect::<Vec<_>>());
        of(0)?;
        Some(std::array::from_fn(|index| of(index).unwrap_or(f64::NAN)))
    }

    /// Half of what lies between the least and the greatest run, in percent of the
    /// median; `None` if there are no two runs.
    fn spread(&self) -> Option<f64> {
        let least = self.values.iter().copied().reduce(f64::min)?;
        let greatest = self.values.iter().copied().reduce(f64::max)?;
        let median = self.median().filter(|median| *median > 0.0 && self.values.len() > 1)?;
        Some((greatest - least) / 2.0 / median * 100.0)
    }
}

impl Report {
    /// A report on these, with the ratio to `baseline` where that is among them.
    pub fn new(subjects: Vec<String>, baseline: &str) -> Self {
        let baseline = subjects.iter().position(|subject| subject == baseline);
        Report { subjects, baseline, rows: Vec::new() }
    }

    /// Adds a run of the subject of this index. A row that only some subjects have
    /// comes after the one that they measured before.
    pub fn add(&mut self, subject: usize, measures: Vec<Measure>) {
        let mut next = 0;
        for Measure { name, unit, value, latencies } in measures {
            let row = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                self.rows.insert(next, Row { name, unit, cells: vec![Cell::default(); self.subjects.len()] });
                next
            });
            let cell = &mut self.rows[row].cells[subject];
            cell.values.push(value);
            cell.latencies.extend(latencies);
            next = row + 1;
        }
    }

    /// What was compared.
    pub fn subjects(&self) -> &[String] {
        &self.subjects
    }

    /// The index of the subject that others are compared with.
    pub fn baseline(&self) -> Option<usize> {
        self.baseline
    }

    /// All figures.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The median of a figure of a subject.
    pub fn median(&self, row: &str, subject: &str) -> Option<f64> {
        let subject = self.subjects.iter().position(|name| name == subject)?;
        self.rows.iter().find(|candidate| candidate.name == row)?.cells[subject].median()
    }

    /// The medians, in columns for a terminal, and below them the latencies.
    pub fn table(&self) -> String {
        let (figures, latencies) = (aligned(&self.figures()), self.latencies());
        if latencies.len() < 2 { figures } else { format!("{figures}\n{}", aligned(&latencies)) }
    }

    /// A header and the medians, with spread and ratio to the baseline.
    pub fn figures(&self) -> Vec<Vec<String>> {
        let mut lines = vec![self.header("", "unit")];
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        lines
    }

    /// A header and the latencies of every row that has any, in microseconds.
    pub fn latencies(&self) -> Vec<Vec<String>> {
        let mut lines = vec![self.header("latency, us", "")];
        for row in &self.rows {
            let cells: Vec<_> = row.cells.iter().map(Cell::latencies).collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            for (index, (label, _)) in PERCENTILES.iter().enumerate() {
                let values = cells.iter().map(|cell| cell.map_or("-".to_owned(), |cell| shown(cell[index])));
                lines.push([row.name.clone(), (*label).to_owned()].into_iter().chain(values).collect());
            }
        }
        lines
    }

    fn header(&self, first: &str, second: &str) -> Vec<String> {
        [first.to_owned(), second.to_owned()].into_iter().chain(self.subjects.iter().cloned()).collect()
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let base = self.baseline.and_then(|index| row.cells[index].median());
        let cells = row.cells.iter().enumerate().map(|(index, cell)| {
            let Some(value) = cell.median() else { return "-".to_owned() };
            let mut text = shown(value);
            if let Some(spread) = cell.spread() {
                let _ = write!(text, " ±{spread:.0}%");
            }
            if let Some(base) = base
                && Some(index) != self.baseline
                && base > 0.0
            {
                let _ = write!(text, " ({}x)", shown(value / base));
            }
            text
        });
        [row.name.clone(), row.unit.clone()].into_iter().chain(cells).collect()
    }

    /// Subjects, and of each figure the medians and the values of all runs.
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let subjects: Map<String, Value> = (self.subjects.iter().zip(&row.cells))
                .filter_map(|(subject, cell)| {
                    let mut json = json!({"median": cell.median()?, "runs": cell.values});
                    if !cell.latencies.is_empty() {
                        json["latencies_us"] = json!(cell.latencies);
                    }
                    Some((subject.clone(), json))
                })
                .collect();
            json!({"name": row.name, "unit": row.unit, "values": subjects})
        });
        json!({"subjects": self.subjects, "rows": Value::Array(rows.collect())})
    }

    /// Reads the same, to be compared with `baseline`.
    pub fn from_json(json: &Value, baseline: &str) -> Result<Report> {
        let list = |json: &Value| json.as_array().cloned().unwrap_or_default();
        let texts = |json: &Value| json.as_str().unwrap_or_default().to_owned();
        let numbers = |json: &Value| list(json).iter().filter_map(Value::as_f64).collect::<Vec<f64>>();
        let subjects: Vec<String> = list(&json["subjects"]).iter().map(texts).collect();
        if subjects.is_empty() {
            return Err("not the results of a benchmark".into());
        }
        let mut report = Report::new(subjects, baseline);
        for row in list(&json["rows"]) {
            let cells = report.subjects.iter().map(|subject| {
                let cell = &row["values"][subject];
                let latencies = list(&cell["latencies_us"]);
                Cell {
                    values: numbers(&cell["runs"]),
                    latencies: latencies.iter().filter_map(|run| numbers(run).try_into().ok()).collect(),
                }
            });
            let cells = cells.collect();
            report.rows.push(Row { name: texts(&row["name"]), unit: texts(&row["unit"]), cells });
        }
        Ok(report)
    }
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The value in the middle; the mean of the two where there is none.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().checked_sub(1)?;
    Some((sorted[middle / 2] + sorted[middle.div_ceil(2)]) / 2.0)
}

/// The same as a table in Markdown, the first line its header; all columns to the left
/// but those of `numbers`.
pub fn markdown(lines: &[Vec<String>], numbers: bool) -> String {
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let rule = |column| if numbers && column > 0 { "---:" } else { "---" };
            let rules: Vec<&str> = (0..line.len()).map(rule).collect();
            let _ = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    text
}

/// About three digits, and all of whole thousands.
pub fn shown(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        value if value.abs() < 10.0 => format!("{value:.2}"),
        value if value.abs() < 100.0 => format!("{value:.1}"),
        value => grouped(value.round() as i64),
    }
}

fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(value: f64) -> Measure {
        Measure::new("put", "ns", value)
    }

    #[test]
    fn measures_cross_processes() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record(2000).unwrap();
        for measure in [measure(1.5), measure(2.5).with(&histogram)] {
            assert_eq!(Measure::from_json(&measure.to_json()).unwrap(), measure);
        }
        assert_eq!(measure(1.0).with(&histogram).latencies, Some([2.0; 5]));
        assert!(Measure::from_json(&json!({"name": "put", "unit": "ns"})).is_err());
    }

    fn report() -> Report {
        let mut report = Report::new(vec!["ours".into(), "theirs".into(), "idle".into()], "theirs");
        for value in [3000.0, 1000.0, 2000.0] {
            let latencies = Some([value, value, value, value, 2.0 * value]);
            report.add(0, vec![Measure { latencies, ..measure(value) }]);
        }
        report.add(1, vec![measure(400.0)]);
        report.add(1, vec![measure(600.0)]);
        report
    }

    #[test]
    fn medians_stand_beside_ratios_to_the_baseline() {
        let text = aligned(&report().figures());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "     unit                ours    theirs  idle",
                "put    ns  2,000 ±50% (4.00x)  500 ±20%     -"
            ]
        );
        assert_eq!(report().latencies()[5], ["put", "max", "4,000", "-", "-"]);
        assert_eq!(report().median("put", "theirs"), Some(500.0));
    }

    #[test]
    fn reports_are_read_as_they_were_written() {
        let json = report().to_json();
        let put = &json["rows"][0]["values"];
        assert_eq!((&put["ours"]["median"], put.get("idle")), (&json!(2000.0), None));
        let read = Report::from_json(&json, "theirs").unwrap();
        assert_eq!((read.to_json(), read.table()), (json, report().table()));
        assert!(Report::from_json(&json!([]), "theirs").is_err());
    }

    #[test]
    fn cells_of_markdown_hold_their_bars() {
        let lines = [vec!["a|b".to_owned(), "c".to_owned()], vec!["d".to_owned(), "e".to_owned()]];
        assert_eq!(markdown(&lines, true), "| a\\|b | c |\n| --- | ---: |\n| d | e |\n");
    }

    #[test]
    fn numbers_have_as_many_digits_as_one_reads() {
        let texts = [0.0, 0.123, 9.5, 12.34, 999.6, 1_234_567.0, -1234.0].map(shown);
        assert_eq!(texts, ["0", "0.12", "9.50", "12.3", "1,000", "1,234,567", "-1,234"]);
    }
}
