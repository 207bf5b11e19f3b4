//! Rows of files, one at a time: CSV, TSV, JSON lines and Parquet.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use indicatif::{ProgressBar, ProgressBarIter};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use super::{Failure, Result, bar};

/// Longest line of JSON, in bytes: more cannot become a value.
const LINE_BYTES_MAX: u64 = 128 << 20;

/// Rows of a Parquet file that are decoded together.
const PARQUET_ROWS: usize = 1024;

/// A value in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    /// Nothing between the commas of CSV.
    Empty,
    Text(String),
    /// A number or a truth value, as JSON writes it.
    Literal(String),
    Bytes(Vec<u8>),
    /// An array or an object.
    Nested(Value),
}

/// A row: where it is, and its columns.
#[derive(Debug, Default)]
pub struct Row {
    /// For messages: `line 7`, `row 12`.
    pub place: String,
    pub columns: Vec<(String, Cell)>,
}

/// Reads rows in the order of a file.
pub struct Rows {
    file: String,
    source: Source,
    progress: ProgressBar,
}

enum Source {
    Csv { reader: csv::Reader<ProgressBarIter<File>>, names: Vec<String>, record: csv::StringRecord },
    Lines(Lines<BufReader<ProgressBarIter<File>>>),
    Parquet { reader: ParquetRecordBatchReader, batch: Option<RecordBatch>, at: usize, number: u64 },
}

impl Rows {
    /// Opens a file; its extension tells the format.
    pub fn open(path: &Path, quiet: bool) -> Result<Rows> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let length = file.metadata()?.len();
        let of_bytes = "{bar:40} {percent:>3} %  {bytes} of {total_bytes}  {eta} left";
        let of_rows = "{bar:40} {percent:>3} %  {human_pos} of {human_len} rows  {eta} left";
        let (source, progress) = match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => {
                let progress = bar(length, of_bytes, quiet);
                let delimiter = if extension.eq_ignore_ascii_case("csv") { b',' } else { b'\t' };
                let mut reader =
                    csv::ReaderBuilder::new().delimiter(delimiter).from_reader(progress.wrap_read(file));
                let names = reader.headers().map_err(|error| csv_failure(&name, &error))?;
                let names = names.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
                (Source::Csv { reader, names, record: csv::StringRecord::new() }, progress)
            }
            "jsonl" | "ndjson" => {
                let progress = bar(length, of_bytes, quiet);
                let reader = BufReader::new(progress.wrap_read(file));
                (Source::Lines(Lines::new(name.clone(), reader)), progress)
            }
            "parquet" => {
                let refused = |error| Failure::Failed(format!("{name}: {error}"));
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refused)?;
                let rows = builder.metadata().file_metadata().num_rows();
                let progress = bar(u64::try_from(rows).unwrap_or(0), of_rows, quiet);
                let reader = builder.with_batch_size(PARQUET_ROWS).build().map_err(refused)?;
                (Source::Parquet { reader, batch: None, at: 0, number: 0 }, progress)
            }
            _ => {
                let what = format!("{name}: a .csv, .tsv, .jsonl or .parquet file is needed");
                return Err(Failure::Usage(what));
            }
        };
        Ok(Rows { file: name, source, progress })
    }

    /// The columns, where all rows have the same.
    pub fn columns(&self) -> Option<Vec<String>> {
        match &self.source {
            Source::Csv { names, .. } => Some(names.clone()),
            Source::Lines(_) => None,
            Source::Parquet { reader, .. } => {
                let schema = arrow_array::RecordBatchReader::schema(reader);
                Some(schema.fields().iter().map(|field| field.name().clone()).collect())
            }
        }
    }

    /// A failure at a place of the file.
    pub fn failure(&self, place: &str, what: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("{}, {place}: {what}", self.file))
    }

    /// Reads the next row into `row`; false at the end.
    pub fn next(&mut self, row: &mut Row) -> Result<bool> {
        row.columns.clear();
        row.place.clear();
        let more = match &mut self.source {
            Source::Csv { reader, names, record } => {
                let more = reader.read_record(record).map_err(|error| csv_failure(&self.file, &error))?;
                if more {
                    row.place = format!("line {}", record.position().map_or(0, csv::Position::line));
                    row.columns.extend(names.iter().cloned().zip(record.iter().map(csv_cell)));
                }
                more
            }
            Source::Lines(lines) => match lines.next()? {
                Some(object) => {
                    row.place = format!("line {}", lines.number());
                    row.columns.extend(object.into_iter().map(|(name, value)| (name, json_cell(value))));
                    true
                }
                None => false,
            },
            Source::Parquet { reader, batch, at, number } => {
                while batch.as_ref().is_none_or(|batch| *at == batch.num_rows()) {
                    let next = reader.next().transpose();
                    *batch = next.map_err(|error| Failure::Failed(format!("{}: {error}", self.file)))?;
                    *at = 0;
                    if batch.is_none() {
                        break;
                    }
                }
                if let Some(batch) = batch {
                    *number += 1;
                    row.place = format!("row {number}");
                    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                        let cell = parquet_cell(column, *at);
                        let cell = cell.map_err(|error| {
                            Failure::Failed(format!("{}, row {number}: {error}", self.file))
                        })?;
                        row.columns.push((field.name().clone(), cell));
                    }
                    *at += 1;
                    self.progress.inc(1);
                }
                batch.is_some()
            }
        };
        if !more {
            self.progress.finish_and_clear();
        }
        Ok(more)
    }
}

fn csv_failure(file: &str, error: &csv::Error) -> Failure {
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} columns where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "text that is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    match error.position() {
        Some(position) => Failure::Failed(format!("{file}, line {}: {what}", position.line())),
        None => Failure::Failed(format!("{file}: {what}")),
    }
}

fn csv_cell(text: &str) -> Cell {
    if text.is_empty() {
        Cell::Empty
    } else if is_json_number(text) {
        Cell::Literal(text.to_owned())
    } else {
        Cell::Text(text.to_owned())
    }
}

/// The grammar of RFC 8259, section 6: no leading zeros, no leading plus.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| {
        let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        (end > 0).then_some(end)
    };
    let rest = text.strip_prefix('-').unwrap_or(text);
    let Some(end) = digits(rest).filter(|end| *end == 1 || !rest.starts_with('0')) else { return false };
    let mut rest = &rest[end..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let Some(end) = digits(fraction) else { return false };
        rest = &fraction[end..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let Some(end) = digits(exponent) else { return false };
        rest = &exponent[end..];
    }
    rest.is_empty()
}

/// Objects of a file of JSON lines, empty lines left out.
pub struct Lines<R> {
    file: String,
    reader: R,
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Reads from `reader`; `file` is its name in messages.
    pub fn new(file: String, reader: R) -> Self {
        Lines { file, reader, number: 0, line: Vec::new() }
    }

    /// A failure at the line last read.
    pub fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("{}, line {}: {what}", self.file, self.number))
    }

    /// Number of the line last read, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next object; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Map<String, Value>>> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut limited = (&mut self.reader).take(LINE_BYTES_MAX + 1);
            let read = limited.read_until(b'\n', &mut self.line);
            if read.map_err(|error| Failure::Failed(format!("{}: {error}", self.file)))? == 0 {
                return Ok(None);
            }
            if self.line.len() as u64 > LINE_BYTES_MAX {
                return Err(self.failure(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match serde_json::from_slice(&self.line) {
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(_) => Err(self.failure("a JSON object is needed")),
                Err(error) => Err(self.failure(error)),
            };
        }
    }
}

fn json_cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text),
        Value::Bool(_) | Value::Number(_) => Cell::Literal(value.to_string()),
        Value::Array(_) | Value::Object(_) => Cell::Nested(value),
    }
}

fn parquet_cell(column: &ArrayRef, row: usize) -> Result<Cell, arrow_schema::ArrowError> {
    if column.is_null(row) {
        return Ok(Cell::Null);
    }
    Ok(match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Binary => Cell::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        DataType::LargeBinary => Cell::Bytes(column.as_binary::<i64>().value(row).to_vec()),
        kind => {
            let literal = kind.is_integer() || kind.is_floating() || *kind == DataType::Boolean;
            let options = FormatOptions::new().with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));
            let text = ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?;
            match literal {
                true if *kind == DataType::Boolean || is_json_number(&text) => Cell::Literal(text),
                // Neither infinity nor "not a number" is a number to JSON.
                _ => Cell::Text(text),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_json_says() {
        for text in ["0", "-0", "10", "1.5", "-2e10", "1E-3", "0.00", "123456789012345678901234567890"] {
            assert!(is_json_number(text), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
        for text in ["", "-", "007", "+1", ".5", "1.", "1e", "0x10", "NaN", "1 ", "--1", "1e+"] {
            assert!(!is_json_number(text), "{text}");
        }
    }
}
