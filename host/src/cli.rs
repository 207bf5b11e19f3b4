//! What the command does, subcommand by subcommand.

mod apply;
mod args;
mod backup;
mod data;
mod export;
mod import;
mod inspect;
mod keyspace;
mod report;
mod rows;
mod scan;
mod simulate;
mod svg;
mod text;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use duramen::{Database, KeyspaceId};
use duramen_host::SandboxOptions;
use indicatif::{ProgressBar, ProgressStyle};

use args::{Arguments, Command};

/// How the command ends.
enum Outcome {
    Done,
    NotFound,
    /// Something is not as the caller expected; nothing was changed.
    Unexpected(String),
}

/// Why it does not.
enum Failure {
    /// The command line cannot be carried out; nothing was done.
    Usage(String),
    /// The database or a file refused.
    Failed(String),
    /// Whoever read the output has gone.
    PipeClosed,
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<duramen::Error> for Failure {
    fn from(error: duramen::Error) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::PipeClosed,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments) {
        Ok(Outcome::Done) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Ok(Outcome::NotFound) => ExitCode::from(1),
        Ok(Outcome::Unexpected(what)) => {
            eprintln!("{what}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(3)
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<Outcome> {
    let home = Home { arguments };
    match &arguments.command {
        Command::Put(put) => data::put(&home, put),
        Command::Get(get) => data::get(&home, get),
        Command::Merge(merge) => data::merge(&home, merge),
        Command::Delete(delete) => data::delete(&home, delete),
        Command::Apply(apply) => apply::apply(&home, apply),
        Command::Scan(scan) => scan::scan(&home, scan),
        Command::Import(import) => import::import(&home, import),
        Command::Export(export) => export::export(&home, export),
        Command::Keyspaces => keyspace::list(&home),
        Command::Keyspace(keyspace) => keyspace::change(&home, keyspace),
        Command::Checkpoint { target } => backup::checkpoint(&home, target),
        Command::Backup(backup) => backup::backup(&home, backup),
        Command::Repair { target } => backup::repair(&home, target),
        Command::Restore(restore) => backup::restore(&home, restore),
        Command::Flush => report::flush(&home),
        Command::Compact(compact) => report::compact(&home, compact),
        Command::Verify => report::verify(&home),
        Command::Stats(stats) => report::stats(&home, stats),
        Command::Inspect(inspect) => inspect::inspect(&home, inspect),
        Command::Simulate(simulate) => simulate::simulate(simulate),
    }
}

/// The database that the command line names.
struct Home<'a> {
    arguments: &'a Arguments,
}

impl Home<'_> {
    fn options(&self, create: bool) -> SandboxOptions {
        let mut options = SandboxOptions::default();
        if let Some(mebibytes) = self.arguments.memory {
            options.memory_bytes_max = mebibytes << 20;
        }
        options.call_fuel = self.arguments.fuel;
        options.engine.create_if_missing = create;
        if let Some(compaction) = &self.arguments.compaction {
            options.engine.compaction.clone_from(compaction);
        }
        options
    }

    /// The directory that the command line names.
    fn db(&self) -> Result<&Path> {
        self.arguments.db.as_deref().ok_or_else(|| Failure::Usage("--db DIR is needed here".into()))
    }

    /// Longest value that the database takes, in bytes.
    fn value_bytes_max(&self) -> usize {
        let options = self.options(true);
        let most = options.engine.value_bytes_max;
        if self.arguments.native { most } else { most.min(options.memory_bytes_max as usize / 8) }
    }

    /// Opens the database, which must exist.
    fn open(&self) -> Result<Box<dyn Database>> {
        self.open_with(false)
    }

    /// Opens the database, created if need be.
    fn open_or_create(&self) -> Result<Box<dyn Database>> {
        self.open_with(true)
    }

    fn open_with(&self, create: bool) -> Result<Box<dyn Database>> {
        let (db, native) = (self.db()?, self.arguments.native);
        if !create && !db.exists() {
            let what =
                format!("{} does not exist; put, import and keyspace create make a database", db.display());
            return Err(Failure::Failed(what));
        }
        Ok(duramen_host::open(db, native, self.options(create))?)
    }
}

/// The keyspace of that name, which must exist.
fn find(db: &dyn Database, name: &str) -> Result<KeyspaceId> {
    if let Some(id) = db.find_keyspace(name)? {
        return Ok(id);
    }
    let names: Vec<String> = db.keyspaces()?.into_iter().map(|(name, _)| name).collect();
    let there = if names.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there is {}", names.join(", "))
    };
    Err(Failure::Failed(format!("there is no keyspace {name}; {there}")))
}

/// A bar on a terminal, nothing elsewhere.
fn bar(length: u64, template: &str, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

/// Something that turns on a terminal while `work` goes on.
fn with_spinner<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let outcome = work();
    spinner.finish_and_clear();
    outcome
}
