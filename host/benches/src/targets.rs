//! The ratios that Duramen is to reach, as data, and whether a run has reached them.

use crate::engines::Kind;
use crate::report::shown;
use crate::results::Results;

/// What is asked of a figure, of which less is better.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// So many times as good as the best of these.
    Times(f64, &'static [Kind]),
    /// So many times as good as its own figure of this name.
    TimesOwn(f64, &'static str),
    /// No more than this, in the figure's unit.
    AtMost(f64),
}

/// A figure, and what is asked of it.
#[derive(Clone, Copy, Debug)]
struct Target {
    benchmark: &'static str,
    row: &'static str,
    subject: Kind,
    goal: Goal,
}

use Goal::{AtMost, Times, TimesOwn};
use Kind::{Fjall, Lmdb, Machine, Native, Redb, Rocksdb, Sandbox, Sqlite};

/// All peers.
const PEERS: &[Kind] = &[Rocksdb, Fjall, Redb, Sqlite, Lmdb];
/// Those that are log-structured merge trees.
const LSM: &[Kind] = &[Rocksdb, Fjall];
const ROCKS: &[Kind] = &[Rocksdb];

/// Write buffer and cache of all benchmarks, and 48 MiB for all else.
const MEMORY_MIB: f64 = 64.0 + 256.0 + 48.0;

const fn target(benchmark: &'static str, row: &'static str, subject: Kind, goal: Goal) -> Target {
    Target { benchmark, row, subject, goal }
}

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target("kv", "fillrandom", Native, Times(2.0, LSM)),
    target("kv", "fillrandom", Sandbox, Times(0.8, ROCKS)),
    target("kv", "batch of 100, per entry", Native, Times(2.0, ROCKS)),
    target("kv", "batch of 100, per entry", Sandbox, Times(1.0, ROCKS)),
    target("synced", "synced put, 1 thread", Native, Times(0.9, &[Machine])),
    target("synced", "synced put, 1 thread", Native, Times(1.0, PEERS)),
    target("synced", "synced put, 1 thread", Sandbox, Times(0.85, &[Machine])),
    target("synced", "synced put, 16 threads", Native, TimesOwn(6.0, "synced put, 1 thread")),
    target("kv", "get hot", Native, Times(4.0, ROCKS)),
    target("kv", "get hot", Native, Times(1.0, &[Lmdb])),
    target("kv", "get hot", Sandbox, Times(2.0, ROCKS)),
    target("kv", "get cold", Native, Times(1.1, ROCKS)),
    target("kv", "get cold", Sandbox, Times(0.3, ROCKS)),
    target("kv", "get missing", Native, Times(1.0, PEERS)),
    target("kv", "get missing", Sandbox, Times(0.5, &[Native])),
    target("kv", "seek + 10", Native, Times(2.0, ROCKS)),
    target("kv", "seek + 10", Sandbox, Times(1.0, ROCKS)),
    target("kv", "range scan of 100", Native, Times(2.5, ROCKS)),
    target("kv", "range scan of 100", Native, Times(1.0, &[Lmdb])),
    target("kv", "range scan of 100", Sandbox, Times(1.0, ROCKS)),
    target("kv", "full scan, per row", Native, Times(5.0, ROCKS)),
    target("kv", "full scan, per row", Native, Times(2.0, &[Lmdb])),
    target("kv", "full scan, per row", Native, AtMost(30.0)),
    target("kv", "full scan, per row", Sandbox, Times(2.0, ROCKS)),
    target("ycsb", "YCSB A, 1 thread", Native, Times(1.5, LSM)),
    target("ycsb", "YCSB A, 1 thread", Sandbox, Times(0.7, LSM)),
    target("ycsb", "YCSB B, 1 thread", Native, Times(1.5, LSM)),
    target("ycsb", "YCSB B, 1 thread", Sandbox, Times(0.7, LSM)),
    target("ycsb", "YCSB C, 1 thread", Native, Times(1.5, LSM)),
    target("ycsb", "YCSB C, 1 thread", Sandbox, Times(0.7, LSM)),
    target("ycsb", "YCSB E, 1 thread", Native, Times(1.5, LSM)),
    target("ycsb", "YCSB E, 1 thread", Sandbox, Times(0.7, LSM)),
    target("ycsb", "YCSB F, 1 thread", Native, Times(1.5, LSM)),
    target("ycsb", "YCSB F, 1 thread", Sandbox, Times(0.7, LSM)),
    target("ycsb", "YCSB C, 2 threads", Native, TimesOwn(1.8, "YCSB C, 1 thread")),
    target("reopen", "reopen after a kill", Native, Times(3.0, LSM)),
    target("reopen", "reopen after a kill", Sandbox, Times(1.0, LSM)),
    target("kv", "space on disk", Native, Times(1.0, ROCKS)),
    target("kv", "space on disk", Sandbox, Times(1.0, ROCKS)),
    target("kv", "peak memory", Native, AtMost(MEMORY_MIB)),
    target("kv", "peak memory", Sandbox, AtMost(MEMORY_MIB)),
    target("latency", "100 B: p99.9", Native, AtMost(5_000.0)),
    target("latency", "100 B: p99.9", Sandbox, AtMost(20_000.0)),
    target("latency", "100 B: longest", Native, AtMost(250_000.0)),
    target("latency", "100 B: longest", Sandbox, AtMost(250_000.0)),
    target("latency", "16 KiB: p99.9", Native, AtMost(5_000.0)),
    target("latency", "16 KiB: p99.9", Sandbox, AtMost(20_000.0)),
    target("latency", "16 KiB: longest", Native, AtMost(250_000.0)),
    target("latency", "16 KiB: longest", Sandbox, AtMost(250_000.0)),
    target("scale", "put, largest over smallest", Native, AtMost(1.5)),
    target("scale", "get hot, largest over smallest", Native, AtMost(1.5)),
    target("scale", "get cold, largest over smallest", Native, AtMost(1.5)),
    target("kv-16384", "fillrandom", Native, Times(1.0, ROCKS)),
    target("kv-16384", "get hot", Native, Times(1.0, ROCKS)),
    target("kv-16384", "get cold", Native, Times(1.0, ROCKS)),
];

/// What profiles said of targets that runs have missed; on machines of two cores, by `perf` and `strace`.
#[rustfmt::skip]
const PROFILES: &[(&str, &str, Kind, &str)] = &[
    ("kv", "fillrandom", Sandbox,
     "One thread does all. A half of the time is in the guest, 20 % of all in the memtable and 12 % in flushes; \
      24 % is in the system, nearly all in the one write of the log that each put makes; 20 % in the ways into \
      the guest and from there to the system. RocksDB writes its tables on the other processor meanwhile."),
    ("kv", "batch of 100, per entry", Sandbox,
     "One thread does all: 26 % of the time is flushes and 21 % compactions, which RocksDB does on the other \
      processor; 26 % is the memtable."),
    ("synced", "synced put, 1 thread", Sandbox,
     "86 % of the time is the disk's sync, and the figure of the machine alone differs by a tenth from run to \
      run."),
    ("synced", "synced put, 16 threads", Native,
     "13 puts share a sync of 206 us; then two processors need 170 us for 20 switches of threads, in which \
      those are woken and come with their next puts. Where a sync takes longer or a switch less, it is more."),
    ("ycsb", "YCSB F, 1 thread", Sandbox,
     "Each operation is a get, and half of them a put too: see fillrandom for what that is made of."),
    ("kv", "get missing", Sandbox,
     "A half of the time is the get in the guest, 1.4 times what it takes natively. The other half is the way \
      there and back, whatever is called: entering the runtime and the guest, looking the function up, handles, \
      the key's way in and the answer's way out."),
    ("kv", "full scan, per row", Native,
     "It waits for memory: for the bytes of each page of keys and values as the walk comes to it."),
    ("scale", "get cold, largest over smallest", Native,
     "A quarter of the time at 10M is the system's copy from its page cache, a seventh the look at filters. \
      RocksDB's figures are beside it."),
    ("latency", "100 B: p99.9", Sandbox,
     "One thread commits and removes files, which took 0.7 ms for each MiB where the file system told the disk \
      of free blocks at once: with files of 64 MiB instead of 16 it was 28 ms instead of 16 to 21."),
    ("latency", "16 KiB: p99.9", Sandbox,
     "One thread commits, flushes and merges, and was busy all the time with 147 MB written in a second: 42 % of \
      it computing, 31 % in syncs of files (about 2 ms, and 1.2 ms for each MiB), 14 % in writes, 10 % in \
      removals of files. What comes while it is behind waits for all that was there before. Natively other \
      threads do this."),
    ("latency", "16 KiB: longest", Sandbox,
     "As with p99.9: the thread falls behind until the work is paid for."),
    ("kv-16384", "fillrandom", Native,
     "It waits for the disk, which took 280 MB/s of log and tables where keys came in order: a put takes 29 us in \
      the middle (RocksDB's 53), but commits wait where the log is sealed and where flushes are behind. The log \
      is synced before its memtable becomes a table, which must never be ahead of it; RocksDB's is not synced. \
      To sync tables more often changes nothing."),
];

/// What became of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The benchmark and its figure.
    pub work: String,
    /// Of whom it is asked.
    pub subject: &'static str,
    /// What is asked.
    pub asked: String,
    /// What was measured.
    pub measured: Option<String>,
    /// Whether that is enough.
    pub met: Option<bool>,
    /// Where it is not: what profiles said of it, if there are any.
    pub profile: Option<&'static str>,
}

impl Verdict {
    /// For people.
    pub fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }
}

/// What became of every target.
pub fn verdicts(all: &[Results]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| verdict(target, all)).collect()
}

fn verdict(target: &Target, all: &[Results]) -> Verdict {
    let results = all.iter().find(|results| results.name == target.benchmark);
    let median = |row, kind: Kind| results.and_then(|results| results.report.median(row, kind.name()));
    let own = median(target.row, target.subject);
    let times = |own: f64, other: Option<f64>| other.map(|other| other / own);
    let (asked, measured) = match target.goal {
        Times(least, kinds) => {
            let best = kinds.iter().filter_map(|kind| median(target.row, *kind)).reduce(f64::min);
            (format!("≥ {} × {}", shown(least), names(kinds)), own.and_then(|own| times(own, best)))
        }
        TimesOwn(least, row) => {
            let other = median(row, target.subject);
            (format!("≥ {} × its own {row}", shown(least)), own.and_then(|own| times(own, other)))
        }
        AtMost(most) => (format!("≤ {}", with_unit(most, results, target.row)), own),
    };
    let (text, met) = match target.goal {
        AtMost(most) => {
            (measured.map(|value| with_unit(value, results, target.row)), measured.map(|value| value <= most))
        }
        Times(least, _) | TimesOwn(least, _) => {
            (measured.map(|ratio| format!("{} ×", shown(ratio))), measured.map(|ratio| ratio >= least))
        }
    };
    let work = format!("{}: {}", target.benchmark, target.row);
    let profile = PROFILES.iter().find(|(benchmark, row, subject, _)| {
        met == Some(false) && (*benchmark, *row, *subject) == (target.benchmark, target.row, target.subject)
    });
    let profile = profile.map(|(.., text)| *text);
    Verdict { work, subject: target.subject.name(), asked, measured: text, met, profile }
}

/// The only one, or what they have in common.
fn names(kinds: &[Kind]) -> &'static str {
    match kinds {
        [kind] => kind.name(),
        _ if kinds == LSM => "best LSM peer",
        _ => "best peer",
    }
}

fn with_unit(value: f64, results: Option<&Results>, row: &str) -> String {
    let rows = results.map_or(&[][..], |results| results.report.rows());
    let unit = rows.iter().find(|candidate| candidate.name == row).map_or("", |row| row.unit.as_str());
    format!("{} {unit}", shown(value)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Measure, Report};

    fn results(name: &str, figures: &[(&str, &str, f64)]) -> Results {
        let mut subjects: Vec<String> = Vec::new();
        for (subject, ..) in figures {
            if !subjects.iter().any(|known| known == subject) {
                subjects.push((*subject).to_owned());
            }
        }
        let mut report = Report::new(subjects.clone(), "rocksdb");
        for (subject, row, value) in figures {
            let index = subjects.iter().position(|known| known == subject).unwrap();
            report.add(index, vec![Measure::new(*row, "ns", *value)]);
        }
        Results { name: name.into(), command: String::new(), machine: vec![], versions: vec![], report }
    }

    fn found(verdicts: &[Verdict], work: &str, subject: &str) -> Vec<(Option<String>, &'static str)> {
        let of = verdicts.iter().filter(|verdict| verdict.work == work && verdict.subject == subject);
        of.map(|verdict| (verdict.measured.clone(), verdict.word())).collect()
    }

    #[test]
    fn ratios_are_those_to_the_best_that_was_measured() {
        let kv = results(
            "kv",
            &[
                ("duramen", "fillrandom", 100.0),
                ("rocksdb", "fillrandom", 300.0),
                ("fjall", "fillrandom", 150.0),
                ("sandbox", "fillrandom", 300.0),
                ("duramen", "full scan, per row", 31.0),
                ("rocksdb", "full scan, per row", 155.0),
            ],
        );
        let verdicts = verdicts(&[kv]);
        assert_eq!(verdicts.len(), TARGETS.len());
        assert_eq!(found(&verdicts, "kv: fillrandom", "duramen"), [(Some("1.50 ×".into()), "missed")]);
        assert_eq!(found(&verdicts, "kv: fillrandom", "sandbox"), [(Some("1.00 ×".into()), "met")]);
        assert_eq!(
            found(&verdicts, "kv: full scan, per row", "duramen"),
            [(Some("5.00 ×".into()), "met"), (None, "not measured"), (Some("31.0 ns".into()), "missed")]
        );
        assert_eq!(found(&verdicts, "kv: get hot", "sandbox"), [(None, "not measured")]);
    }

    #[test]
    fn what_profiles_say_is_said_where_a_target_is_missed() {
        let said = |nanos| {
            let kv = results("kv", &[("duramen", "full scan, per row", nanos)]);
            verdicts(&[kv]).iter().filter(|verdict| verdict.profile.is_some()).count()
        };
        assert_eq!((said(31.0), said(30.0)), (1, 0));
        for (benchmark, row, subject, _) in PROFILES {
            let mut targets = TARGETS.iter().map(|target| (target.benchmark, target.row, target.subject));
            assert!(targets.any(|target| target == (*benchmark, *row, *subject)), "{benchmark}: {row}");
        }
    }

    #[test]
    fn a_figure_is_compared_with_another_of_the_same_subject() {
        let synced = results(
            "synced",
            &[("duramen", "synced put, 1 thread", 700.0), ("duramen", "synced put, 16 threads", 100.0)],
        );
        let verdicts = verdicts(&[synced]);
        let sixteen = found(&verdicts, "synced: synced put, 16 threads", "duramen");
        assert_eq!(sixteen, [(Some("7.00 ×".into()), "met")]);
    }
}
