//! How many instructions the engine needs: exact where times are not, and the same on a
//! busy machine. Each loop runs under valgrind, and its count is held against the one in
//! `instructions.txt`: it may be up to 5 % more or less.
//!
//! ```text
//! cargo run --release --package duramen-loops
//! DURAMEN_BLESS=1 cargo run ...          after a change that is meant: writes the file
//! ```

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::{env, fs};

use duramen::measuring::{Loop, key, loops, value};
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Database, Db, Keyspace, Options};

/// Rows of the tables that are read.
const ROWS: u64 = 20_000;

/// Runs of each table: what is merged.
const RUNS: u64 = 4;

/// By how much a count may differ.
const TOLERANCE: f64 = 0.05;

/// Where the counts are that are expected.
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

fn main() -> ExitCode {
    let outcome = match env::args().nth(1) {
        Some(name) => measure(&name),
        None => check(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one loop; what valgrind counts is in [`measured`].
fn measure(name: &str) -> Result<(), String> {
    let found = all().into_iter().find(|(each, _)| *each == name);
    let (_, prepare) = found.ok_or_else(|| format!("there is no loop {name}"))?;
    measured(&mut *prepare().run);
    Ok(())
}

#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    black_box(run)();
}

/// Counts for every loop, beside what is expected.
fn check() -> Result<(), String> {
    let expected = fs::read_to_string(EXPECTED).unwrap_or_default();
    let bless = env::var_os("DURAMEN_BLESS").is_some_and(|bless| bless == "1");
    let (mut lines, mut wrong) = (String::new(), Vec::new());
    for (name, prepare) in all() {
        let count = count(name)? / prepare().steps as f64;
        let _ = writeln!(lines, "{name:28} {count:10.1}");
        let before = expected.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let change = before.map_or(f64::INFINITY, |before| count / before - 1.0);
        println!("{name:28} {count:10.1} instructions a step, {:+.1} %", change * 100.0);
        if change.abs() > TOLERANCE {
            wrong.push(name);
        }
    }
    if bless {
        return fs::write(EXPECTED, lines).map_err(|error| format!("{EXPECTED}: {error}"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let percent = TOLERANCE * 100.0;
    Err(format!(
        "more than {percent} % from {EXPECTED}: {}. Where that is meant, DURAMEN_BLESS=1 writes it anew.",
        wrong.join(", ")
    ))
}

/// Instructions of a loop.
fn count(name: &str) -> Result<f64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .arg(program)
        .arg(name)
        // Instructions that fill or copy at once count once for each byte, and are used by
        // some processors alone.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM")
        .output()
        .map_err(|error| format!("valgrind did not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() && count > 0.0 => Ok(count),
        _ => Err(format!("{name}: valgrind has counted nothing:\n{text}")),
    }
}

type Prepare = Box<dyn FnOnce() -> Loop>;

/// What users do, and the inner loops.
fn all() -> Vec<(&'static str, Prepare)> {
    let mut all: Vec<(&'static str, Prepare)> = vec![
        ("put", Box::new(put)),
        ("get", Box::new(get)),
        ("get of a missing key", Box::new(missing)),
        ("scan", Box::new(scan)),
        ("flush", Box::new(flush)),
        ("compaction", Box::new(compaction)),
    ];
    for (at, each) in loops().into_iter().enumerate() {
        all.push((each.name, Box::new(move || loops().swap_remove(at))));
    }
    all
}

fn open() -> (Db, Keyspace) {
    let options = Options { memtable_bytes: 1 << 30, background: Background::Inline, ..Options::default() };
    let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    (db, keyspace)
}

fn put_rows(keyspace: &Keyspace, first: u64, step: u64) {
    for number in (first..ROWS).step_by(step as usize) {
        keyspace.put(&key(number), &value(number)).unwrap();
    }
}

/// A database of so many runs.
fn filled(runs: u64) -> (Db, Keyspace) {
    let (db, keyspace) = open();
    for run in 0..runs {
        put_rows(&keyspace, run, runs);
        db.flush().unwrap();
    }
    (db, keyspace)
}

fn run(steps: u64, run: impl FnMut() + 'static) -> Loop {
    Loop { name: "", steps, run: Box::new(run) }
}

fn put() -> Loop {
    let (db, keyspace) = open();
    run(ROWS, move || {
        let _db = &db;
        put_rows(&keyspace, 0, 1);
    })
}

fn get() -> Loop {
    let (db, keyspace) = filled(1);
    let all = move || {
        let _db = &db;
        (0..ROWS).for_each(|number| assert!(keyspace.get(&key(number)).unwrap().is_some()));
    };
    // Then pages are in the cache.
    all();
    run(ROWS, all)
}

fn missing() -> Loop {
    let (db, keyspace) = filled(RUNS);
    let all = move || {
        let _db = &db;
        (ROWS..2 * ROWS).for_each(|number| assert!(keyspace.get(&key(number)).unwrap().is_none()));
    };
    all();
    run(ROWS, all)
}

fn scan() -> Loop {
    let (db, keyspace) = filled(RUNS);
    run(ROWS, move || {
        let _db = &db;
        let mut rows = keyspace.range::<&[u8]>(..);
        let mut count = 0;
        while let Some(row) = rows.next_borrowed().unwrap() {
            black_box(row);
            count += 1;
        }
        assert_eq!(count, ROWS);
    })
}

fn flush() -> Loop {
    let (db, keyspace) = open();
    put_rows(&keyspace, 0, 1);
    run(ROWS, move || db.flush().unwrap())
}

fn compaction() -> Loop {
    let (db, _) = filled(RUNS);
    run(ROWS, move || db.compact().unwrap())
}
