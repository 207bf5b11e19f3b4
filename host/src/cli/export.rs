//! export: all pairs of a keyspace into a file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use duramen::ScanRange;
use duramen::api::pairs;
use indicatif::ProgressBar;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::args::{Export, FileFormat, Format};
use super::scan::Printer;
use super::{Failure, Home, Outcome, Result, bar, find, text};

/// Bytes of pairs that go into a row group together.
const GROUP_BYTES: usize = 16 << 20;

type Pairs<'a> = &'a mut dyn Iterator<Item = duramen::Result<(Bytes, Bytes)>>;

pub fn export(home: &Home<'_>, export: &Export) -> Result<Outcome> {
    let target = export.file.as_deref().or(export.output.as_deref()).filter(|path| *path != Path::new("-"));
    let format = format(export, target)?;
    if format == FileFormat::Parquet && target.is_none() {
        return Err(Failure::Usage("Parquet goes to a file, not to standard output; name one".into()));
    }
    if let Some(path) = target.filter(|path| path.exists() && !export.force) {
        return Err(Failure::Failed(format!("{} exists; --force replaces it", path.display())));
    }
    let db = home.open()?;
    let keyspace = find(&*db, &export.keyspace.keyspace)?;
    let progress = bar(0, "{spinner} {human_pos} pairs", export.quiet || target.is_none());
    let mut rows = pairs(db.scan(keyspace, &ScanRange::all(), None)?).inspect(|_| progress.inc(1));
    let count = match target {
        None => write_text(io::stdout().lock(), format, export.hex, &mut rows)?,
        Some(path) => write_file(path, format, export.hex, &mut rows)?,
    };
    finish(&progress);
    db.close()?;
    if let Some(path) = target.filter(|_| !export.quiet) {
        println!("{count} pairs exported to {}", path.display());
    }
    Ok(Outcome::Done)
}

fn finish(progress: &ProgressBar) {
    progress.finish_and_clear();
}

fn format(export: &Export, target: Option<&Path>) -> Result<FileFormat> {
    let extension = target.and_then(|path| path.extension()?.to_str());
    match (export.format, extension) {
        (Some(format), _) => Ok(format),
        (None, Some("parquet")) => Ok(FileFormat::Parquet),
        (None, Some("csv")) => Ok(FileFormat::Csv),
        (None, Some("jsonl" | "ndjson")) => Ok(FileFormat::Jsonl),
        _ => Err(Failure::Usage("a .parquet, .csv or .jsonl file is needed, or --format".into())),
    }
}

/// Writes beside the file and puts it in place when it is whole.
fn write_file(path: &Path, format: FileFormat, hex: bool, rows: Pairs<'_>) -> Result<u64> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let named = |error: io::Error| Failure::Failed(format!("{}: {error}", path.display()));
    let file = File::create(&partial).map_err(named)?;
    let written = match format {
        FileFormat::Parquet => write_parquet(file.try_clone()?, rows),
        _ => write_text(&file, format, hex, rows),
    };
    let placed = written.and_then(|count| {
        file.sync_all().and_then(|()| fs::rename(&partial, path)).map_err(named)?;
        Ok(count)
    });
    if placed.is_err() {
        // The reason to report is the one before.
        let _ = fs::remove_file(&partial);
    }
    placed
}

fn write_text(out: impl Write, format: FileFormat, hex: bool, rows: Pairs<'_>) -> Result<u64> {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let mut count = 0;
    if format == FileFormat::Csv && hex {
        writeln!(out, "key_hex,value_hex")?;
        for row in rows {
            let (key, value) = row?;
            writeln!(out, "{},{}", text::to_hex(&key), text::to_hex(&value))?;
            count += 1;
        }
    } else {
        let format = if format == FileFormat::Csv { Format::Csv } else { Format::Jsonl };
        let mut printer = Printer::new(&mut out, format, false)?;
        for row in rows {
            let (key, value) = row?;
            printer.pair(&key, &value)?;
            count += 1;
        }
    }
    out.flush()?;
    Ok(count)
}

fn write_parquet(file: File, rows: Pairs<'_>) -> Result<u64> {
    let refused = |error: ParquetError| Failure::Failed(error.to_string());
    let column = |name| Field::new(name, DataType::Binary, false);
    let schema = Arc::new(Schema::new(vec![column("key"), column("value")]));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(refused)?;
    let (mut keys, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    let (mut count, mut bytes) = (0, 0);
    let mut rows = rows.peekable();
    while let Some(row) = rows.next() {
        let (key, value) = row?;
        keys.append_value(&key);
        values.append_value(&value);
        count += 1;
        bytes += key.len() + value.len();
        if bytes >= GROUP_BYTES || rows.peek().is_none() {
            let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
            writer.write(&batch.map_err(|error| Failure::Failed(error.to_string()))?).map_err(refused)?;
            writer.flush().map_err(refused)?;
            bytes = 0;
        }
    }
    writer.close().map_err(refused)?;
    Ok(count)
}
