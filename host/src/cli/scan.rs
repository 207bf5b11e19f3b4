//! scan: pairs on standard output, page by page.

use std::io::{self, BufWriter, Write};
use std::ops::Bound;

use duramen::ScanRange;
use duramen::api::pairs;

use super::args::{Format, Scan};
use super::{Failure, Home, Outcome, Result, find, text};

pub fn scan(home: &Home<'_>, scan: &Scan) -> Result<Outcome> {
    let range = range(scan)?;
    if scan.int && scan.format == Format::Hex {
        return Err(Failure::Usage(
            "--int and --format hex are two ways to print a value; choose one".into(),
        ));
    }
    let db = home.open()?;
    let keyspace = find(&*db, &scan.keyspace.keyspace)?;
    let rows = pairs(db.scan(keyspace, &range, None)?);
    let rows = rows.take(scan.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    let mut out = BufWriter::new(io::stdout().lock());
    if scan.count {
        let mut count = 0_u64;
        for row in rows {
            row?;
            count += 1;
        }
        writeln!(out, "{count}")?;
    } else {
        let mut printer = Printer::new(&mut out, scan.format, scan.int)?;
        for row in rows {
            let (key, value) = row?;
            printer.pair(&key, &value)?;
        }
    }
    out.flush()?;
    db.close()?;
    Ok(Outcome::Done)
}

fn range(scan: &Scan) -> Result<ScanRange> {
    let range = match &scan.prefix {
        Some(prefix) => ScanRange::prefix(&text::argument(prefix, scan.hex)?),
        None => ScanRange {
            start: bound(scan.start.as_deref(), scan.hex, Bound::Included)?,
            end: bound(scan.end.as_deref(), scan.hex, Bound::Excluded)?,
            reverse: false,
        },
    };
    Ok(if scan.reverse { range.reversed() } else { range })
}

fn bound(text: Option<&str>, hex: bool, kind: fn(Vec<u8>) -> Bound<Vec<u8>>) -> Result<Bound<Vec<u8>>> {
    match text {
        Some(text) => text::argument(text, hex).map(kind),
        None => Ok(Bound::Unbounded),
    }
}

/// Prints pairs in a format of text.
pub struct Printer<W: Write> {
    out: W,
    format: Format,
    /// Values of 8 bytes are printed as integers.
    int: bool,
    line: Vec<u8>,
}

impl<W: Write> Printer<W> {
    /// Begins with the header, if the format has one.
    pub fn new(mut out: W, format: Format, int: bool) -> Result<Self> {
        if format == Format::Csv {
            writeln!(out, "key,value")?;
        }
        Ok(Printer { out, format, int, line: Vec::new() })
    }

    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let int = text::int(value).filter(|_| self.int);
        let digits = int.map(|int| int.to_string());
        match self.format {
            Format::Text => {
                let value = digits.unwrap_or_else(|| text::printable(value));
                writeln!(self.out, "{}\t{value}", text::printable(key))?;
            }
            Format::Jsonl => writeln!(self.out, "{}", text::json_line(key, value, int))?,
            Format::Hex => writeln!(self.out, "{}\t{}", text::to_hex(key), text::to_hex(value))?,
            Format::Csv => {
                let value = digits.as_ref().map_or(value, String::as_bytes);
                if std::str::from_utf8(key).is_err() || std::str::from_utf8(value).is_err() {
                    let what = format!(
                        "key {} or its value is not UTF-8, which CSV cannot hold; use jsonl, or hexadecimal digits",
                        text::printable(key)
                    );
                    return Err(Failure::Failed(what));
                }
                self.line.clear();
                let mut csv = csv::Writer::from_writer(&mut self.line);
                csv.write_record([key, value]).map_err(|error| Failure::Failed(error.to_string()))?;
                csv.flush()?;
                drop(csv);
                self.out.write_all(&self.line)?;
            }
        }
        Ok(())
    }
}
