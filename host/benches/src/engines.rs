//! The engines under test, behind one small trait.
//!
//! Every engine gets the same keys, values and order from the benchmarks, and what
//! [`Setup`] says. All that compress do so with a fast LZ codec (Snappy in Duramen,
//! LZ4 in RocksDB and fjall; tonbo knows Zstd alone); all that have filters have 10 bits
//! per key. Writes are handed to the system without a sync, or each commit is synced, as
//! `Setup` says. What remains are their defaults; where one of them cannot be asked for the same,
//! its file says what is done instead.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
mod native;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;
mod sandbox;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tonbo")]
mod tonbo;

use std::path::PathBuf;
use std::sync::Arc;

use crate::Result;
use crate::clock::SimulatedClock;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Duramen, linked into this program
    #[value(name = "duramen")]
    Native,
    /// Duramen in a WebAssembly sandbox
    Sandbox,
    /// RocksDB
    Rocksdb,
    /// fjall
    Fjall,
    /// redb
    Redb,
    /// SQLite
    Sqlite,
    /// LMDB
    Lmdb,
    /// tonbo
    Tonbo,
    /// No engine: what the machine can do
    Machine,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 9] = {
        use Kind::*;
        [Native, Sandbox, Rocksdb, Fjall, Redb, Sqlite, Lmdb, Tonbo, Machine]
    };

    /// All that are engines.
    pub const ENGINES: [Kind; 8] = {
        use Kind::*;
        [Native, Sandbox, Rocksdb, Fjall, Redb, Sqlite, Lmdb, Tonbo]
    };

    /// Those that tell which sorted runs they have.
    pub const WITH_RUNS: [Kind; 3] = [Kind::Native, Kind::Sandbox, Kind::Rocksdb];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Native => "duramen",
            Kind::Sandbox => "sandbox",
            Kind::Rocksdb => "rocksdb",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::Sqlite => "sqlite",
            Kind::Lmdb => "lmdb",
            Kind::Tonbo => "tonbo",
            Kind::Machine => "machine",
        }
    }

    /// The feature of this crate that it needs and that is off.
    pub fn missing_feature(self) -> Option<&'static str> {
        match self {
            Kind::Rocksdb if cfg!(not(feature = "rocksdb")) => Some("rocksdb"),
            Kind::Fjall if cfg!(not(feature = "fjall")) => Some("peers"),
            Kind::Redb if cfg!(not(feature = "redb")) => Some("peers"),
            Kind::Sqlite if cfg!(not(feature = "sqlite")) => Some("peers"),
            Kind::Lmdb if cfg!(not(feature = "lmdb")) => Some("peers"),
            Kind::Tonbo if cfg!(not(feature = "tonbo")) => Some("tonbo"),
            _ => None,
        }
    }

    /// The packages that it is built from, by their names in the lock file.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Kind::Native => &["duramen"],
            Kind::Sandbox => &["duramen", "wasmtime"],
            Kind::Rocksdb => &["rocksdb", "librocksdb-sys"],
            Kind::Fjall => &["fjall", "lsm-tree"],
            Kind::Redb => &["redb"],
            Kind::Sqlite => &["rusqlite", "libsqlite3-sys"],
            Kind::Lmdb => &["heed", "lmdb-master-sys"],
            Kind::Tonbo => &["tonbo"],
            Kind::Machine => &[],
        }
    }

    /// What the C library behind such a package calls itself.
    pub fn library(self) -> Option<String> {
        match self {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => Some(format!("SQLite {}", rusqlite::version())),
            #[cfg(feature = "lmdb")]
            Kind::Lmdb => {
                let version = heed::lmdb_version();
                Some(format!("LMDB {}.{}.{}", version.major, version.minor, version.patch))
            }
            _ => None,
        }
    }

    /// Opens a database, created if need be.
    pub fn open(self, setup: &Setup) -> Result<Box<dyn Engine>> {
        match self {
            Kind::Native => native::open(setup),
            Kind::Sandbox => sandbox::open(setup),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => rocks::open(setup),
            #[cfg(feature = "fjall")]
            Kind::Fjall => fjall::open(setup),
            #[cfg(feature = "redb")]
            Kind::Redb => redb::open(setup),
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => sqlite::open(setup),
            #[cfg(feature = "lmdb")]
            Kind::Lmdb => lmdb::open(setup),
            #[cfg(feature = "tonbo")]
            Kind::Tonbo => tonbo::open(setup),
            #[allow(unreachable_patterns, reason = "with all features, the machine alone is left")]
            _ => Err(format!("{} is not an engine that is built in", self.name()).into()),
        }
    }
}

/// What a benchmark asks of an engine.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the database is.
    pub directory: PathBuf,
    /// Bytes in memory before a flush. Duramen counts what it allocates, RocksDB
    /// too, but the two need different amounts for an entry.
    pub write_buffer_bytes: usize,
    /// Bytes of cache. Default: 256 MiB.
    pub cache_bytes: usize,
    /// Each commit is durable when it returns. Default: false, handed to the system.
    pub synced: bool,
    /// Flushes and compactions begin by themselves. Default: true.
    pub automatic: bool,
    /// Milliseconds that an entry lives, by this clock.
    pub ttl: Option<(u64, Arc<SimulatedClock>)>,
    /// Options of Duramen, `name=value`.
    pub options: Vec<String>,
}

impl Setup {
    /// A database in this directory.
    pub fn new(directory: PathBuf, options: &[String]) -> Self {
        Setup {
            directory,
            write_buffer_bytes: 64 << 20,
            cache_bytes: 256 << 20,
            synced: false,
            automatic: true,
            ttl: None,
            options: options.to_vec(),
        }
    }
}

/// Shows a pair; false to stop.
pub type Show<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// An open database; dropping it closes it.
pub trait Engine: Send + Sync {
    /// One put, in a commit of its own.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// One delete, in a commit of its own.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Puts in one commit.
    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Shows the value of `key`; false if there is none.
    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Shows the values of those of `keys` that have one, each with its index, all
    /// at one moment.
    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()>;

    /// Shows the pairs from `start` on and below `end`, until told to stop.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()>;

    /// Shows pairs from `start` on, until told to stop, as it will be after `pairs_max`.
    /// Engines that go from pair to pair have no use for that number.
    fn scan_few(&self, start: &[u8], pairs_max: usize, show: Show<'_>) -> Result<()> {
        let _ = pairs_max;
        self.scan(start, None, show)
    }

    /// True if it scans backwards.
    fn scans_back(&self) -> bool {
        true
    }

    /// Shows all pairs from the last on, until told to stop.
    fn scan_back(&self, show: Show<'_>) -> Result<()>;

    /// Makes all commits durable.
    fn sync(&self) -> Result<()>;

    /// Writes what is in memory, or in a log, to where it is read from for good.
    fn flush(&self) -> Result<()>;

    /// Merges everything into one sorted run.
    fn compact(&self) -> Result<()> {
        Err("not an engine that compacts when it is told to".into())
    }

    /// Flushes, and returns when no compaction is due any more.
    fn settle(&self) -> Result<()>;

    /// Bytes of SSTables written since open by flushes, and by compactions; `None`
    /// if it does not tell.
    fn written(&self) -> Result<Option<Written>> {
        Ok(None)
    }

    /// How many sorted runs there are now; cheap. `None` if it does not tell.
    fn run_count(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    /// The sorted runs there are, as key ranges of their files, once it is settled;
    /// `None` if it does not tell.
    fn runs(&self) -> Result<Option<Vec<Run>>> {
        Ok(None)
    }
}

/// Bytes of SSTables written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// By flushes.
    pub flush_bytes: u64,
    /// By compactions.
    pub compaction_bytes: u64,
}

/// Files whose keys do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Each with its first and last key, in order.
    pub files: Vec<File>,
}

/// An SSTable.
#[derive(Clone, Debug)]
pub struct File {
    /// Its first key.
    pub key_min: Vec<u8>,
    /// Its last key.
    pub key_max: Vec<u8>,
    /// Its length.
    pub bytes: u64,
}

impl Run {
    /// True if `key` is in the range of a file.
    pub fn may_hold(&self, key: &[u8]) -> bool {
        let index = self.files.partition_point(|file| file.key_max.as_slice() < key);
        self.files.get(index).is_some_and(|file| file.key_min.as_slice() <= key)
    }
}

impl Written {
    /// By both.
    pub fn bytes(self) -> u64 {
        self.flush_bytes + self.compaction_bytes
    }
}

/// Bytes of all files.
pub fn bytes(runs: &[Run]) -> u64 {
    runs.iter().flat_map(|run| &run.files).map(|file| file.bytes).sum()
}

/// Number of all files.
pub fn files(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.files.len()).sum()
}

/// Sorted runs that a get must look into if no filter helps, on average of `keys`.
pub fn runs_per_get<K: AsRef<[u8]>>(runs: &[Run], keys: impl ExactSizeIterator<Item = K>) -> f64 {
    let count = keys.len();
    let holding = |key: K| runs.iter().filter(|run| run.may_hold(key.as_ref())).count();
    keys.map(holding).sum::<usize>() as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_looks_into_the_runs_whose_files_reach_around_its_key() {
        let file = |key_min: &str, key_max: &str| File {
            key_min: key_min.into(),
            key_max: key_max.into(),
            bytes: 1,
        };
        let runs = [
            Run { files: vec![file("a", "c"), file("e", "g")] },
            Run { files: vec![file("b", "z")] },
            Run::default(),
        ];
        assert_eq!(runs_per_get(&runs, ["a", "b", "d", "e"].iter()), 6.0 / 4.0);
        assert_eq!((bytes(&runs), files(&runs)), (3, 3));
    }
}
