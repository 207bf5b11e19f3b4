//! `report`: a page with charts, and a document, of all results that there are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::engines::Kind;
use crate::page;
use crate::report::markdown;
use crate::results::Results;
use crate::targets::{Verdict, verdicts};

/// Make report.html and docs/benchmarks.md of the results in the directory
///
/// The page is beside the results and needs nothing but itself.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The engine that others are compared with in charts and tables
    #[arg(long, value_enum, default_value = "rocksdb")]
    base: Kind,
    /// Where the document is written
    #[arg(long, default_value = "docs/benchmarks.md")]
    document: PathBuf,
}

/// Writes both.
pub fn run(directory: &Path, arguments: &Arguments) -> Result<()> {
    let all = Results::load_all(directory, arguments.base.name())?;
    let Some(first) = all.first() else {
        return Err("there are no results yet; see cargo xtask bench --list".into());
    };
    let verdicts = verdicts(&all);
    let page = directory.join("report.html");
    std::fs::write(&page, page::html(&all, first, &verdicts))?;
    std::fs::write(&arguments.document, document(&all, first, &verdicts))?;
    println!("{}\n{}", page.display(), arguments.document.display());
    Ok(())
}

/// Names and texts as a table.
pub fn pairs(first: &str, second: &str, pairs: &[(String, String)]) -> Vec<Vec<String>> {
    let header = [vec![first.to_owned(), second.to_owned()]].into_iter();
    header.chain(pairs.iter().map(|(name, text)| vec![name.clone(), text.clone()])).collect()
}

/// The versions of all engines in all results.
pub fn versions(all: &[Results]) -> Vec<(String, String)> {
    let mut versions: Vec<(String, String)> = Vec::new();
    for version in all.iter().flat_map(|results| &results.versions) {
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    versions
}

/// The targets as a table.
pub fn target_lines(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let header = ["work", "engine", "target", "measured", ""].map(str::to_owned).to_vec();
    let lines = verdicts.iter().map(|verdict| {
        let measured = verdict.measured.clone().unwrap_or("-".to_owned());
        let (work, subject) = (verdict.work.clone(), verdict.subject.to_owned());
        vec![work, subject, verdict.asked.clone(), measured, verdict.word().to_owned()]
    });
    [header].into_iter().chain(lines).collect()
}

/// What is said above [`profiles`].
pub const PROFILED: &str =
    "What profiles said of those that were missed; their figures are of the machine that was looked at then.";

/// What profiles said of those that were missed, each with its name.
pub fn profiles(verdicts: &[Verdict]) -> Vec<(String, &'static str)> {
    let said = |verdict: &Verdict| Some((format!("{}, {}", verdict.work, verdict.subject), verdict.profile?));
    verdicts.iter().filter_map(said).collect()
}

/// How many targets were met, for people.
pub fn tally(verdicts: &[Verdict]) -> String {
    let count = |met| verdicts.iter().filter(|verdict| verdict.met == met).count();
    let (met, missed, open) = (count(Some(true)), count(Some(false)), count(None));
    format!("{met} met, {missed} missed, {open} not measured")
}

/// How the figures are to be read.
pub const CONDITIONS: &[&str] = &[
    "Every engine gets the same keys of 16 bytes, values, order, write buffer (64 MiB) and cache (256 MiB; \
     8 MiB for what is called cold; a sandbox whose latency is measured has 16 MiB and 64 MiB), and compresses with a fast LZ codec and has filters of 10 bits per \
     key where it has such things at all. Each run of each engine has a process and a directory of its own; \
     the order of the engines rotates from run to run. Every value that is read is checked. What is in Rust is \
     built with optimisation level 3 and thin link-time optimisation, the others as their packages build them \
     for release.",
    "Figures are medians of the runs; behind ± is half of their range. In brackets is the figure over that \
     of the engine that all are compared with. Less is better, but where a unit is per second. A target of \
     so many × is that many times as fast, or as small, as the other. Latencies \
     of operations below 2 µs are those of every seventh, so that the clock is not what is measured.",
    "Without a sync, a commit is handed to the system by Duramen, RocksDB, fjall, SQLite (synchronous = \
     NORMAL) and LMDB (MDB_NOSYNC, where a loss of power may damage the database); redb keeps it in the \
     process (Durability::None). redb, SQLite and LMDB pay for a transaction with each put, and redb and \
     LMDB for one with each get. LMDB's cache is the system's, so what is called cold is not for it, and its map \
     counts as memory of the process.",
];

fn document(all: &[Results], first: &Results, verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\nMade by `cargo xtask bench report` from the results of runs; not edited by hand.\n\n",
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", markdown(&pairs("machine", "", &first.machine), false));
    let _ = writeln!(text, "{}", markdown(&pairs("engine", "built from", &versions(all)), false));
    CONDITIONS.iter().for_each(|paragraph| text += &format!("{paragraph}\n\n"));
    let _ =
        writeln!(text, "## Targets\n\n{}.\n\n{}", tally(verdicts), markdown(&target_lines(verdicts), false));
    let profiles = profiles(verdicts);
    if !profiles.is_empty() {
        let lines: String = profiles.iter().map(|(name, text)| format!("- **{name}**: {text}\n")).collect();
        let _ = writeln!(text, "{PROFILED}\n\n{lines}");
    }
    for results in all {
        let _ = writeln!(text, "## {}\n\n```sh\ncargo xtask bench {}\n```\n", results.name, results.command);
        if results.machine != first.machine {
            let _ = writeln!(text, "{}", markdown(&pairs("another machine", "", &results.machine), false));
        }
        text += &markdown(&results.report.figures(), true);
        let latencies = results.report.latencies();
        if latencies.len() > 1 {
            let _ = write!(
                text,
                "\n<details><summary>Latencies</summary>\n\n{}\n</details>\n",
                markdown(&latencies, true)
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Measure, Report};

    #[test]
    fn the_document_has_machine_targets_and_figures() {
        let mut report = Report::new(vec!["duramen".into(), "rocksdb".into()], "rocksdb");
        report.add(0, vec![Measure::new("fillrandom", "ns", 100.0)]);
        report.add(0, vec![Measure::new("full scan, per row", "ns", 31.0)]);
        report.add(1, vec![Measure::new("fillrandom", "ns", 250.0)]);
        let results = Results {
            name: "kv".into(),
            command: "kv --entries 1M".into(),
            machine: vec![("cores".into(), "2".into())],
            versions: vec![("duramen".into(), "duramen 0.1.0".into())],
            report,
        };
        let all = [results];
        let text = document(&all, &all[0], &verdicts(&all));
        for line in [
            "| cores | 2 |",
            "| duramen | duramen 0.1.0 |",
            "| kv: fillrandom | duramen | ≥ 2.00 × best LSM peer | 2.50 × | met |",
            PROFILED,
            "\n- **kv: full scan, per row, duramen**: It waits for memory",
            "cargo xtask bench kv --entries 1M",
            "| fillrandom | ns | 100 (0.40x) | 250 |",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("Latencies</summary>") && !text.contains("**kv: fillrandom"));
    }
}
