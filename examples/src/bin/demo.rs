//! Duramen at work on a year of flights, in the sandbox: import, gets, prefix
//! scans, a batch over two keyspaces, a snapshot, `kill -9` in the middle of an
//! import, compaction, verification, and the SSTables in DuckDB.
//!
//! `cargo xtask demo` builds everything and runs it. By itself:
//!
//! ```sh
//! cargo run --release -p duramen-examples --bin demo -- DURAMEN DATA DATABASE [PYTHON]
//! ```
//!
//! DURAMEN is the command, DATA the directory `examples/data`, DATABASE a
//! directory that is replaced, PYTHON one that has the package `duckdb`. Every
//! claim printed has been checked; the first that does not hold ends the run.

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use bytes::Bytes;
use duramen::api::pairs;
use duramen::{Database, Durability, KeyspaceId, ScanRange, SnapshotId, WriteBatch};
use duramen_host::SandboxOptions;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Columns whose values, joined by `/`, are unique over all flights.
const KEY: &str = "carrier,time_hour,flight";

/// Rows of the second import that are acknowledged before it is killed.
const KILL_AFTER: u64 = 150_000;

/// Keys read to measure gets.
const GETS: usize = 20_000;

/// Operations in one batch, enough for the cost of a commit to disappear.
const BATCH: usize = 1000;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (command, data, directory, python) = match arguments.as_slice() {
        [command, data, directory] => (command, data, directory, None),
        [command, data, directory, python] => (command, data, directory, Some(python)),
        _ => return Err("usage: demo DURAMEN DATA DATABASE [PYTHON]".into()),
    };
    let start = Instant::now();
    let flights = data.join("flights.parquet");
    let source = keys(&flights)?;
    let rows = source.len() as u64;
    let native_directory = directory.with_extension("native");
    remove(directory)?;
    remove(&native_directory)?;

    let step = Step::begin("A sandboxed database");
    open(directory, false)?.close()?;
    println!("   The engine is a WebAssembly component; it reaches the database's directory, a clock");
    println!("   and random numbers, nothing else. The first open on a machine compiles it, and later");
    println!("   ones find the result in the cache.");
    step.end();

    let step = Step::begin(&format!("Import {} flights", grouped(rows)));
    let import = Import { command, directory, file: &flights, keyspace: "flights", native: false };
    println!("   $ {}", import.shown());
    let (committed, sandboxed_import) = import.run()?;
    check(committed == rows, &format!("{committed} of {rows} rows were committed"))?;
    println!("   {} rows, {} a second", grouped(rows), grouped(rate(rows, sandboxed_import)));
    step.end();

    let db = open(directory, false)?;
    let keyspace = db.find_keyspace("flights")?.ok_or("the keyspace is not there")?;

    let step = Step::begin("Gets");
    for key in ["UA/2013-01-01T10:00:00Z/1545", "B6/2013-07-04T23:00:00Z/883", "ZZ/2013-01-01T10:00:00Z/1"] {
        match db.get(keyspace, key.as_bytes(), None)? {
            Some(value) => println!("   {key} = {}", shortened(&value)),
            None => println!("   {key} is not there"),
        }
    }
    let first =
        flight(&db.get(keyspace, source[0].as_bytes(), None)?.ok_or("the first flight is not there")?)?;
    check(first["tailnum"] == "N14228" && first["arr_delay"] == 11, "the first flight is not the source's")?;
    step.end();

    let step = Step::begin("Prefix scans");
    for (prefix, what, expected) in
        [("UA/", "flights of United", 58_665), ("UA/2013-07-04", "of them on 4 July (UTC)", 140)]
    {
        let found = count(&*db, keyspace, prefix, None)?;
        println!("   {:>7} {what}: prefix {prefix}", grouped(found));
        check(found == expected, &format!("{found} keys begin with {prefix}, not {expected}"))?;
    }
    let by_tail = index_by_tail(&*db, keyspace)?;
    let entries = count(&*db, by_tail, "", None)?;
    check(entries == 334_264, &format!("{entries} index entries"))?;
    println!("   {:>7} entries of an index by tail number, built in a second keyspace", grouped(entries));
    let busiest = "N725MQ/";
    let keys_of_tail: Vec<Bytes> =
        scan(&*db, by_tail, busiest, None)?.map(|pair| Ok(pair?.1)).collect::<Result<_>>()?;
    let found = db.multi_get(keyspace, &keys_of_tail.iter().map(|key| &key[..]).collect::<Vec<_>>(), None)?;
    for value in &found {
        let value = value.as_ref().ok_or("the index names a flight that is not there")?;
        check(flight(value)?["tailnum"] == "N725MQ", "the index names a flight of another aeroplane")?;
    }
    println!("   {:>7} flights of the busiest aeroplane: prefix {busiest}, then a multi-get", found.len());
    check(found.len() == 575, "the busiest aeroplane made 575 flights")?;
    step.end();

    let step = Step::begin("One batch over two keyspaces, and a snapshot from before it");
    let snapshot = db.snapshot()?;
    let (deleted, overwritten) = cancel_one_carrier_and_check_another(&*db, keyspace, by_tail)?;
    let mut seen = Vec::new();
    for (when, at) in [("now", None), ("in the snapshot", Some(snapshot))] {
        let skywest = count(&*db, keyspace, "OO/", at)?;
        let checked = scan(&*db, keyspace, "HA/", at)?
            .map(|pair| Ok(flight(&pair?.1)?.get("checked").is_some()))
            .collect::<Result<Vec<_>>>()?;
        let checked = checked.into_iter().filter(|checked| *checked).count() as u64;
        println!("   {when}: {skywest} flights of SkyWest, {checked} of Hawaiian checked");
        seen.push((skywest, checked));
    }
    check(seen == [(0, overwritten), (deleted, 0)], "the snapshot does not see the state before the batch")?;
    check((deleted, overwritten) == (32, 342), "the batch touched other flights than it should")?;
    db.release(snapshot)?;
    db.close()?;
    drop(db);
    step.end();

    let step = Step::begin("kill -9 in the middle of a second import");
    let import = Import { keyspace: "again", ..import };
    let acknowledged = import.run_until_killed(KILL_AFTER)?;
    println!("   killed after {} rows were acknowledged as committed", grouped(acknowledged));
    let db = open(directory, false)?;
    let stats = db.stats()?;
    println!("   reopened: {} commits replayed from the WAL", grouped(stats.recovered_commits));
    let again = db.find_keyspace("again")?.ok_or("the acknowledged keyspace is gone")?;
    let recovered = check_prefix(&*db, keyspace, again, &source, acknowledged)?;
    println!(
        "   {} rows are there: every acknowledged one, and exactly the first rows of",
        grouped(recovered)
    );
    println!("   the file, in their order and with their values; nothing from beyond a gap");
    let now = count(&*db, keyspace, "", None)?;
    check(now == rows - deleted, &format!("{now} flights after the crash"))?;
    println!("   {} flights imported before are there, too", grouped(now));
    step.end();

    let step = Step::begin("Compaction and verification");
    db.flush()?;
    println!("   before:");
    picture(&*db)?;
    db.compact()?;
    println!("   after:");
    picture(&*db)?;
    let stats = db.stats()?;
    let runs = stats.keyspaces.iter().filter(|k| k.id == keyspace).flat_map(|k| &k.runs);
    let (entries, tombstones) = runs.fold((0, 0), |sum, run| (sum.0 + run.entries, sum.1 + run.tombstones));
    check(
        (entries, tombstones) == (now, 0),
        &format!("{entries} entries, {tombstones} tombstones are left"),
    )?;
    let report = db.verify()?;
    for problem in &report.problems {
        println!("   {} at byte {}: {}", problem.file, problem.offset, problem.what);
    }
    check(report.problems.is_empty(), "verification found damage")?;
    println!("   verified: {} files, {}, no damage", report.files, mebibytes(report.bytes));
    println!(
        "   on disk: {}; the data set as zstd Parquet: {}",
        mebibytes(size(directory)?),
        mebibytes(fs::metadata(&flights)?.len())
    );
    step.end();

    let step = Step::begin("The same engine without the sandbox");
    let native = Import { directory: &native_directory, keyspace: "flights", native: true, ..import };
    println!("   $ {}", native.shown());
    let (_, native_import) = native.run()?;
    let native_db = open(&native_directory, true)?;
    native_db.compact()?;
    let native_keyspace = native_db.find_keyspace("flights")?.ok_or("the keyspace is not there")?;
    println!("   {:16}{:>18}{:>18}   sandbox takes", "", "sandbox", "native");
    compare("import", "rows", rows, sandboxed_import, native_import);
    compare(
        "get",
        "keys",
        GETS as u64,
        gets(&*db, keyspace, &source)?,
        gets(&*native_db, native_keyspace, &source)?,
    );
    compare("scan", "rows", now, scan_all(&*db, keyspace)?, scan_all(&*native_db, native_keyspace)?);
    compare("put", "keys", GETS as u64, puts(&*db, &source, 1)?, puts(&*native_db, &source, 1)?);
    compare("batch of 100", "keys", GETS as u64, puts(&*db, &source, 100)?, puts(&*native_db, &source, 100)?);
    println!("   One run of each, this program and others on the machine together: an indication.");
    native_db.close()?;
    drop(native_db);
    remove(&native_directory)?;
    db.close()?;
    drop(db);
    step.end();

    let step = Step::begin("The SSTables are Parquet files");
    let query = format!(
        "SELECT decode(key)[1:2] AS carrier, count(*) AS flights, \
         round(avg((decode(value)->>'arr_delay')::INT), 1) AS minutes_late \
         FROM '{}' WHERE kind = 0 GROUP BY 1 ORDER BY 3 LIMIT 5",
        shown(&directory.join(format!("sst/{}/*.parquet", keyspace.0)))
    );
    println!("   $ python3 -c \"import duckdb; print(duckdb.sql(\\\"{query}\\\"))\"");
    if let Some(python) = python {
        let program = "import duckdb, sys; print(duckdb.sql(sys.argv[1]))";
        let status = Command::new(python).args(["-c", program, &query]).status()?;
        check(status.success(), "DuckDB did not read the SSTables")?;
    }
    step.end();

    println!(
        "\nAll checks passed in {:.1} s. The database stays in {}; go on with it:",
        start.elapsed().as_secs_f64(),
        shown(directory)
    );
    println!(
        "   {} --db {} scan --keyspace flights --prefix DL/2013-12-24",
        shown(command),
        shown(directory)
    );
    println!(
        "   python3 examples/python/flights.py {} delays.png   # see examples/python/README.md",
        shown(directory)
    );
    Ok(())
}

/// A heading and the time that what follows it took.
struct Step(Instant);

impl Step {
    fn begin(title: &str) -> Self {
        println!("\n== {title}");
        Step(Instant::now())
    }

    fn end(self) {
        println!("   -- {:.1} s", self.0.elapsed().as_secs_f64());
    }
}

fn check(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("check failed: {otherwise}").into()) }
}

fn open(directory: &Path, native: bool) -> Result<Box<dyn Database>> {
    Ok(duramen_host::open(directory, native, SandboxOptions::default())?)
}

/// `duramen import`, run as its own process.
#[derive(Clone, Copy)]
struct Import<'a> {
    command: &'a Path,
    directory: &'a Path,
    file: &'a Path,
    keyspace: &'a str,
    native: bool,
}

impl Import<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--db".to_owned(), shown(self.directory)];
        arguments.extend(self.native.then(|| "--native".to_owned()));
        arguments.extend(["import".to_owned(), shown(self.file)]);
        arguments.extend(["--keyspace", self.keyspace, "--key", KEY].map(str::to_owned));
        arguments
    }

    fn shown(&self) -> String {
        format!("duramen {}", self.arguments().join(" "))
    }

    /// Imports everything; answers with the rows committed and the time.
    fn run(&self) -> Result<(u64, Duration)> {
        let start = Instant::now();
        let (committed, killed) = self.spawn(50_000, |rows| {
            println!("   {:>7} rows committed after {:.1} s", grouped(rows), start.elapsed().as_secs_f64());
            true
        })?;
        check(!killed, "the import was killed")?;
        Ok((committed, start.elapsed()))
    }

    /// Kills the process once it has acknowledged `rows`; answers with the rows
    /// acknowledged before it died.
    fn run_until_killed(&self, rows: u64) -> Result<u64> {
        let (acknowledged, killed) = self.spawn(2_000, |committed| committed < rows)?;
        check(killed, "the import ended before it was killed")?;
        Ok(acknowledged)
    }

    /// Runs the process, telling `on_commit` of each acknowledgement, and kills
    /// it when that answers false. Answers with the rows acknowledged last, and
    /// whether it was killed.
    fn spawn(&self, every: u64, on_commit: impl Fn(u64) -> bool) -> Result<(u64, bool)> {
        let mut child = Command::new(self.command)
            .args(self.arguments())
            .args(["--progress-every", &every.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.command.display()))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut stderr = child.stderr.take().ok_or("no standard error")?;
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before a failure is still worth showing.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let (mut acknowledged, mut killed) = (0, false);
        // After the kill, this goes on with what was already in the pipe: those
        // acknowledgements count as well.
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let rows = line.strip_prefix("committed ").and_then(|rest| rest.split_whitespace().next());
            let Some(rows) = rows.and_then(|rows| rows.parse().ok()) else { continue };
            acknowledged = rows;
            if !on_commit(rows) && !killed {
                // SIGKILL on Unix: no handler, no destructor, no flush.
                child.kill()?;
                killed = true;
            }
        }
        let status = child.wait()?;
        let complaints = complaints.join().unwrap_or_default();
        if !killed && !status.success() {
            return Err(format!("{}: {status}\n{complaints}", self.shown()).into());
        }
        Ok((acknowledged, killed && !status.success()))
    }
}

/// The key of every row, in the order of the file.
fn keys(flights: &Path) -> Result<Vec<String>> {
    let file = File::open(flights).map_err(|error| format!("{}: {error}", flights.display()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), KEY.split(','));
    let mut keys = Vec::new();
    for batch in builder.with_projection(columns).build()? {
        let batch = batch?;
        let column = |name| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
        let carrier = column("carrier")?.as_string::<i32>();
        let time_hour = column("time_hour")?.as_string::<i32>();
        let flight = column("flight")?.as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            keys.push(format!("{}/{}/{}", carrier.value(row), time_hour.value(row), flight.value(row)));
        }
    }
    Ok(keys)
}

fn scan(
    db: &dyn Database,
    keyspace: KeyspaceId,
    prefix: &str,
    snapshot: Option<SnapshotId>,
) -> Result<impl Iterator<Item = duramen::Result<(Bytes, Bytes)>> + use<>> {
    Ok(pairs(db.scan(keyspace, &ScanRange::prefix(prefix.as_bytes()), snapshot)?))
}

fn count(db: &dyn Database, keyspace: KeyspaceId, prefix: &str, snapshot: Option<SnapshotId>) -> Result<u64> {
    let mut count = 0;
    for pair in scan(db, keyspace, prefix, snapshot)? {
        let (key, _) = pair?;
        check(key.starts_with(prefix.as_bytes()), "a scan went beyond its prefix")?;
        count += 1;
    }
    Ok(count)
}

fn flight(value: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(value)?)
}

/// The key in the index by tail number: `tailnum/time_hour/flight`.
fn tail_key(key: &[u8], value: &[u8]) -> Result<Option<String>> {
    let (_, rest) = std::str::from_utf8(key)?.split_once('/').ok_or("a key without a carrier")?;
    Ok(flight(value)?["tailnum"].as_str().map(|tail| format!("{tail}/{rest}")))
}

/// A secondary index, kept by the application: tail number to key of `flights`.
fn index_by_tail(db: &dyn Database, flights: KeyspaceId) -> Result<KeyspaceId> {
    let by_tail = db.create_keyspace("by_tail")?;
    let mut batch = WriteBatch::new();
    for pair in scan(db, flights, "", None)? {
        let (key, value) = pair?;
        if let Some(tail_key) = tail_key(&key, &value)? {
            batch.put(by_tail, tail_key.as_bytes(), &key);
        }
        if batch.len() == BATCH {
            db.write(std::mem::take(&mut batch), Durability::Buffered)?;
        }
    }
    db.write(batch, Durability::Sync)?;
    Ok(by_tail)
}

/// Deletes SkyWest's flights together with their index entries and marks
/// Hawaiian's as checked, all in one batch. Answers with the counts of both.
fn cancel_one_carrier_and_check_another(
    db: &dyn Database,
    flights: KeyspaceId,
    by_tail: KeyspaceId,
) -> Result<(u64, u64)> {
    let mut batch = WriteBatch::new();
    let (mut deleted, mut overwritten) = (0, 0);
    for pair in scan(db, flights, "OO/", None)? {
        let (key, value) = pair?;
        batch.delete(flights, &key);
        if let Some(tail_key) = tail_key(&key, &value)? {
            batch.delete(by_tail, tail_key.as_bytes());
        }
        deleted += 1;
    }
    for pair in scan(db, flights, "HA/", None)? {
        let (key, value) = pair?;
        let mut flight = flight(&value)?;
        flight["checked"] = Value::Bool(true);
        batch.put(flights, &key, flight.to_string().as_bytes());
        overwritten += 1;
    }
    db.write(batch, Durability::Sync)?;
    Ok((deleted, overwritten))
}

/// What a crash may leave: the first rows of the file, no fewer than were
/// acknowledged, none changed. Answers with their count.
fn check_prefix(
    db: &dyn Database,
    before: KeyspaceId,
    again: KeyspaceId,
    source: &[String],
    acknowledged: u64,
) -> Result<u64> {
    let recovered: Vec<(Bytes, Bytes)> = scan(db, again, "", None)?.collect::<duramen::Result<_>>()?;
    let rows = recovered.len() as u64;
    check(rows >= acknowledged, &format!("{acknowledged} rows were acknowledged and {rows} are there"))?;
    check(rows < source.len() as u64, "the import was killed too late to show anything")?;
    let first: HashSet<&[u8]> = source[..recovered.len()].iter().map(|key| key.as_bytes()).collect();
    for (key, _) in &recovered {
        check(first.contains(&key[..]), "a row is there and an earlier one is not")?;
    }
    for chunk in recovered.chunks(BATCH) {
        let keys: Vec<&[u8]> = chunk.iter().map(|(key, _)| &key[..]).collect();
        for ((key, value), original) in chunk.iter().zip(db.multi_get(before, &keys, None)?) {
            let changed_by_us = key.starts_with(b"OO/") || key.starts_with(b"HA/");
            check(changed_by_us || original.as_ref() == Some(value), "a recovered row has another value")?;
        }
    }
    Ok(rows)
}

/// Prints the sorted runs of every keyspace.
fn picture(db: &dyn Database) -> Result<()> {
    for keyspace in db.stats()?.keyspaces {
        for run in keyspace.runs {
            println!(
                "     {:8} level {}: {:>2} files {:>10} {:>9} entries {:>6} tombstones",
                keyspace.name,
                run.level,
                run.files,
                mebibytes(run.bytes),
                grouped(run.entries),
                grouped(run.tombstones)
            );
        }
    }
    Ok(())
}

/// Time of [`GETS`] gets, in an order that jumps over the whole keyspace.
fn gets(db: &dyn Database, keyspace: KeyspaceId, source: &[String]) -> Result<Duration> {
    let stride = source.len() * 5 / 13;
    let start = Instant::now();
    for index in 0..GETS {
        let key = &source[index * stride % source.len()];
        let value = db.get(keyspace, key.as_bytes(), None)?;
        check(value.is_some() || key.starts_with("OO/"), "a flight is not there")?;
    }
    Ok(start.elapsed())
}

/// Time of [`GETS`] puts of 100 bytes, so many in a batch.
fn puts(db: &dyn Database, source: &[String], batch: usize) -> Result<Duration> {
    let keyspace = db.create_keyspace("puts")?;
    let stride = source.len() * 5 / 13;
    let keys: Vec<&String> = (0..GETS).map(|index| &source[index * stride % source.len()]).collect();
    let start = Instant::now();
    for keys in keys.chunks(batch) {
        let mut ops = WriteBatch::new();
        for key in keys {
            ops.put(keyspace, key.as_bytes(), &[b'v'; 100]);
        }
        db.write(ops, Durability::Buffered)?;
    }
    let time = start.elapsed();
    db.drop_keyspace("puts")?;
    Ok(time)
}

fn scan_all(db: &dyn Database, keyspace: KeyspaceId) -> Result<Duration> {
    let start = Instant::now();
    count(db, keyspace, "", None)?;
    Ok(start.elapsed())
}

fn compare(what: &str, unit: &str, count: u64, sandboxed: Duration, native: Duration) {
    let shown = |time| format!("{} {unit}/s", grouped(rate(count, time)));
    let ratio = sandboxed.as_secs_f64() / native.as_secs_f64();
    println!("   {what:16}{:>18}{:>18}   {ratio:.1} times as long", shown(sandboxed), shown(native));
}

fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()).into())
        }
        _ => Ok(()),
    }
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The path as one would type it here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn shortened(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.chars().count() <= 60 {
        text.into_owned()
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Digits in groups of three: 336,776.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
