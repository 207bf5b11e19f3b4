//! flush, compact, verify and stats.

use std::ops::ControlFlow;

use duramen::stats::{BackgroundError, JobStats, KeyspaceStats, LevelStats, StallState, StallStats};
use duramen::{CompactionProgress, ScanRange, Stats, VerifyReport};
use serde_json::{Value, json};

use super::{Failure, Home, Outcome, Result, bar, find, with_spinner};
use super::{args, text};

/// Columns of the longest bar.
const BAR_COLUMNS: u64 = 36;

pub fn flush(home: &Home<'_>) -> Result<Outcome> {
    let db = home.open()?;
    with_spinner("flushing", || db.flush())?;
    let stats = db.stats()?;
    db.close()?;
    println!("{} memtables flushed, {} written", stats.flushes, size(stats.flush_bytes));
    Ok(Outcome::Done)
}

pub fn compact(home: &Home<'_>, arguments: &args::Compact) -> Result<Outcome> {
    let db = home.open()?;
    let before = table_bytes(&db.stats()?);
    let range = match &arguments.prefix {
        Some(prefix) => ScanRange::prefix(&text::argument(prefix, arguments.hex)?),
        None => ScanRange::all(),
    };
    let keyspaces = match &arguments.keyspace {
        Some(name) => vec![(name.clone(), find(&*db, name)?)],
        None => db.keyspaces()?,
    };
    for (name, keyspace) in keyspaces {
        let bar = bar(0, &format!("compacting {name} [{{bar:40}}] {{percent}} %"), false);
        let mut show = |progress: CompactionProgress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            ControlFlow::Continue(())
        };
        db.compact_range(keyspace, &range, &mut show)?;
        bar.finish_and_clear();
    }
    let after = table_bytes(&db.stats()?);
    db.close()?;
    println!("SSTables: {} before, {} after", size(before), size(after));
    Ok(Outcome::Done)
}

fn table_bytes(stats: &Stats) -> u64 {
    stats.keyspaces.iter().flat_map(|keyspace| &keyspace.runs).map(|run| run.bytes).sum()
}

pub fn verify(home: &Home<'_>) -> Result<Outcome> {
    let db = home.open()?;
    let report = with_spinner("verifying", || db.verify())?;
    db.close()?;
    verified(&report)?;
    Ok(Outcome::Done)
}

/// Prints what a verification found.
pub fn verified(report: &VerifyReport) -> Result<()> {
    for problem in &report.problems {
        println!("{} at byte {}: {}", problem.file, problem.offset, problem.what);
    }
    println!(
        "{} files, {}, {} entries in SSTables",
        report.files,
        size(report.bytes),
        grouped(report.entries)
    );
    match report.problems.len() {
        0 => {
            println!("no damage");
            Ok(())
        }
        count => Err(Failure::Failed(format!(
            "{count} damaged places; keep a copy of the directory, and restore the files named from a backup"
        ))),
    }
}

pub fn stats(home: &Home<'_>, arguments: &args::Stats) -> Result<Outcome> {
    let db = home.open()?;
    let stats = db.stats()?;
    db.close()?;
    if arguments.json {
        println!("{}", to_json(&stats));
    } else {
        print!("{}", picture(&stats));
    }
    Ok(Outcome::Done)
}

/// The levels of every keyspace, drawn.
fn picture(stats: &Stats) -> String {
    let mut text = String::new();
    let runs = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.runs).map(|run| run.bytes);
    let memtables = stats.keyspaces.iter().map(|keyspace| keyspace.memtable_bytes);
    let longest = runs.chain(memtables).max().unwrap_or(0).max(1);
    for keyspace in &stats.keyspaces {
        text.push_str(&keyspace_picture(keyspace, longest));
    }
    let mut line = |name: &str, what: String| text.push_str(&format!("{name:<12}{what}\n"));
    line(
        "commits",
        format!(
            "{} in all; {} replayed at this open",
            grouped(stats.last_sequence),
            grouped(stats.recovered_commits)
        ),
    );
    line("WAL", format!("{} in {} files", size(stats.wal_bytes), stats.wal_files));
    if stats.recovered_bytes_dropped > 0 {
        line(
            "torn tail",
            format!("{} of commits that were never acknowledged", size(stats.recovered_bytes_dropped)),
        );
    }
    if let Some(StallState { cause, kind }) = stats.stall {
        line("stall", format!("commits are {kind} now ({cause})"));
    }
    for stall in &stats.stalls {
        let StallStats { cause, kind, count, total_ms, max_ms } = stall;
        let times = format!(
            "{} times, {} ms, the longest {} ms",
            grouped(*count),
            grouped(*total_ms),
            grouped(*max_ms)
        );
        line("stalls", format!("{kind} by the {cause}: {times}"));
    }
    for BackgroundError { lane, message, count, since_ms } in &stats.background_errors {
        let times = format!("{} times in {} s", grouped(*count), grouped(since_ms / 1000));
        line("failing", format!("{lane}, {times}: {message}"));
    }
    if !stats.names_durable {
        line("durability", "names of new files are not promised to survive power loss here".to_owned());
    }
    text
}

fn keyspace_picture(keyspace: &KeyspaceStats, longest: u64) -> String {
    let mut text = format!("{}\n", keyspace.name);
    let mut row = |name: &str, bytes: u64, rest: String| {
        let columns = (bytes * BAR_COLUMNS).div_ceil(longest) as usize;
        let bar = "█".repeat(columns);
        text.push_str(&format!(
            "  {name:<9} {bar:<width$} {:>10}  {rest}\n",
            size(bytes),
            width = BAR_COLUMNS as usize
        ));
    };
    row("memtables", keyspace.memtable_bytes, format!("{} entries", grouped(keyspace.memtable_entries)));
    for run in &keyspace.runs {
        let files = if run.files == 1 { "file " } else { "files" };
        let rest = format!(
            "{} {files}  {} entries, {} tombstones, {} range tombstones",
            run.files,
            grouped(run.entries),
            grouped(run.tombstones),
            grouped(run.range_tombstones)
        );
        row(&format!("level {}", run.level), run.bytes, rest);
    }
    let ratio = |ratio: Option<f64>| ratio.map_or("not known yet".to_owned(), |ratio| format!("{ratio:.2}"));
    text.push_str(&format!(
        "  scaling {}; reads look into {} runs at most; amplification since open: write {}, space up to {}\n",
        keyspace.scaling,
        keyspace.overlap,
        ratio(keyspace.write_amplification()),
        ratio(keyspace.space_amplification()),
    ));
    if !keyspace.adaptive.is_empty() {
        text.push_str(&format!("  adaptive: {}\n", keyspace.adaptive));
    }
    text.push('\n');
    text
}

fn to_json(stats: &Stats) -> Value {
    let keyspace = |keyspace: &KeyspaceStats| {
        let runs: Vec<Value> = keyspace
            .runs
            .iter()
            .map(|run| {
                json!({
                    "level": run.level, "density": run.density, "files": run.files, "bytes": run.bytes,
                    "entries": run.entries, "tombstones": run.tombstones,
                    "range_tombstones": run.range_tombstones,
                })
            })
            .collect();
        let level = |level: &LevelStats| {
            json!({
                "level": level.level, "scaling": level.scaling, "runs": level.runs, "files": level.files,
                "bytes": level.bytes, "density_max": level.density_max,
            })
        };
        json!({
            "levels": keyspace.levels.iter().map(level).collect::<Vec<_>>(),
            "scaling": keyspace.scaling, "adaptive": keyspace.adaptive, "overlap": keyspace.overlap,
            "pending_bytes": keyspace.pending_bytes, "bytes_put": keyspace.bytes_put,
            "flush_bytes": keyspace.flush_bytes, "compaction_bytes": keyspace.compaction_bytes,
            "write_amplification": keyspace.write_amplification(),
            "space_amplification": keyspace.space_amplification(),
            "id": keyspace.id.0, "name": keyspace.name, "memtable_entries": keyspace.memtable_entries,
            "memtable_bytes": keyspace.memtable_bytes, "runs": runs,
        })
    };
    let job = |job: &JobStats| {
        json!({
            "keyspace": job.keyspace.0, "cause": job.cause, "level": job.level, "inputs": job.inputs,
            "outputs": job.outputs, "bytes_read": job.bytes_read, "bytes_written": job.bytes_written,
            "entries": job.entries, "entries_dropped": job.entries_dropped, "ms": job.ms,
        })
    };
    let stall = |stall: &StallStats| {
        json!({
            "cause": stall.cause.to_string(), "kind": stall.kind.to_string(), "count": stall.count,
            "total_ms": stall.total_ms, "max_ms": stall.max_ms,
        })
    };
    let error = |error: &BackgroundError| {
        json!({
            "lane": error.lane.to_string(), "message": error.message, "count": error.count,
            "since_ms": error.since_ms,
        })
    };
    json!({
        "keyspaces": stats.keyspaces.iter().map(keyspace).collect::<Vec<_>>(),
        "last_sequence": stats.last_sequence,
        "wal_files": stats.wal_files,
        "wal_bytes": stats.wal_bytes,
        "recovered_commits": stats.recovered_commits,
        "recovered_bytes_dropped": stats.recovered_bytes_dropped,
        "flush_failures": stats.flush_failures,
        "compaction_failures": stats.compaction_failures,
        "names_durable": stats.names_durable,
        "stall": stats.stall.map(|now| {
            json!({ "cause": now.cause.to_string(), "kind": now.kind.to_string() })
        }),
        "stall_ms": stats.stall_ms,
        "stalls": stats.stalls.iter().map(stall).collect::<Vec<_>>(),
        "jobs": stats.jobs.iter().map(job).collect::<Vec<_>>(),
        "background_errors": stats.background_errors.iter().map(error).collect::<Vec<_>>(),
    })
}

pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
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
