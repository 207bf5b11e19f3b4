//! What was measured: as a table for people, as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::Result;

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// How much.
    pub value: f64,
}

impl Measure {
    /// For the process that asked for it.
    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "unit": self.unit, "value": self.value})
    }

    /// Reads the same.
    pub fn from_json(json: &Value) -> Result<Measure> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let parts = (text("name"), text("unit"), json["value"].as_f64());
        let (Some(name), Some(unit), Some(value)) = parts else {
            return Err(format!("not a measure: {json}").into());
        };
        Ok(Measure { name, unit, value })
    }
}

/// Figures of several subjects, each from some runs.
#[derive(Debug)]
pub struct Report {
    subjects: Vec<String>,
    /// The subject that others are compared with.
    baseline: Option<usize>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: String,
    /// For each subject, the value of each run.
    values: Vec<Vec<f64>>,
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
        for Measure { name, unit, value } in measures {
            let row = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                self.rows.insert(next, Row { name, unit, values: vec![Vec::new(); self.subjects.len()] });
                next
            });
            self.rows[row].values[subject].push(value);
            next = row + 1;
        }
    }

    /// The medians, in columns.
    pub fn table(&self) -> String {
        let mut lines = vec![self.header()];
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        aligned(&lines)
    }

    fn header(&self) -> Vec<String> {
        ["".to_owned(), "unit".to_owned()].into_iter().chain(self.subjects.iter().cloned()).collect()
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let base = self.baseline.and_then(|index| median(&row.values[index]));
        let cells = row.values.iter().enumerate().map(|(index, values)| {
            let Some(value) = median(values) else { return "-".to_owned() };
            match base {
                Some(base) if Some(index) != self.baseline && base > 0.0 => {
                    format!("{} ({}x)", shown(value), shown(value / base))
                }
                _ => shown(value),
            }
        });
        [row.name.clone(), row.unit.clone()].into_iter().chain(cells).collect()
    }

    /// Medians and the values of all runs.
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let subjects: Map<String, Value> = (self.subjects.iter().zip(&row.values))
                .filter_map(|(subject, values)| {
                    Some((subject.clone(), json!({"median": median(values)?, "runs": values})))
                })
                .collect();
            json!({"name": row.name, "unit": row.unit, "values": subjects})
        });
        Value::Array(rows.collect())
    }
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.len()).max();
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

/// About three digits, and all of whole thousands.
fn shown(value: f64) -> String {
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
        Measure { name: "put".into(), unit: "ns".into(), value }
    }

    #[test]
    fn measures_cross_processes() {
        assert_eq!(Measure::from_json(&measure(1.5).to_json()).unwrap(), measure(1.5));
        assert!(Measure::from_json(&json!({"name": "put", "unit": "ns"})).is_err());
    }

    #[test]
    fn medians_stand_beside_ratios_to_the_baseline() {
        let mut report = Report::new(vec!["ours".into(), "theirs".into(), "idle".into()], "theirs");
        for value in [3000.0, 1000.0, 2000.0] {
            report.add(0, vec![measure(value)]);
        }
        report.add(1, vec![measure(400.0)]);
        report.add(1, vec![measure(600.0)]);
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            ["     unit           ours  theirs  idle", "put    ns  2,000 (4.00x)     500     -"]
        );
        let json = report.to_json();
        assert_eq!(json[0]["values"]["ours"]["median"], 2000.0);
        assert_eq!(json[0]["values"]["ours"]["runs"], json!([3000.0, 1000.0, 2000.0]));
        assert_eq!(json[0]["values"].get("idle"), None);
    }

    #[test]
    fn numbers_have_as_many_digits_as_one_reads() {
        let texts = [0.0, 0.123, 9.5, 12.34, 999.6, 1_234_567.0, -1234.0].map(shown);
        assert_eq!(texts, ["0", "0.12", "9.50", "12.3", "1,000", "1,234,567", "-1,234"]);
    }
}
