//! The engines under test, behind one small trait.
//!
//! Every engine gets the same keys, values and order from the benchmarks, and what
//! [`Setup`] says. All of them compress with a fast LZ codec (Snappy in Duramen,
//! LZ4 in RocksDB), have filters of 10 bits per key, and write ahead without
//! syncing. What remains are their defaults.

mod native;
#[cfg(feature = "rocksdb")]
mod rocks;
mod sandbox;

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
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 3] = [Kind::Native, Kind::Sandbox, Kind::Rocksdb];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Native => "duramen",
            Kind::Sandbox => "sandbox",
            Kind::Rocksdb => "rocksdb",
        }
    }

    /// The feature of this crate that it needs and that is off.
    pub fn missing_feature(self) -> Option<&'static str> {
        match self {
            Kind::Rocksdb if cfg!(not(feature = "rocksdb")) => Some("rocksdb"),
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
            #[cfg(not(feature = "rocksdb"))]
            Kind::Rocksdb => Err("RocksDB is not built in".into()),
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
            automatic: true,
            ttl: None,
            options: options.to_vec(),
        }
    }
}

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

    /// Shows the pairs from `start` on and below `end`, until told to stop with
    /// false.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        show: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()>;

    /// Writes to SSTables what is in memory.
    fn flush(&self) -> Result<()>;

    /// Merges everything into one sorted run.
    fn compact(&self) -> Result<()>;

    /// Flushes, and returns when no compaction is due any more.
    fn settle(&self) -> Result<()>;

    /// Bytes of SSTables written since open by flushes, and by compactions.
    fn written(&self) -> Result<Written>;

    /// How many sorted runs there are now; cheap.
    fn run_count(&self) -> Result<usize>;

    /// The sorted runs there are, as key ranges of their files, once it is settled.
    fn runs(&self) -> Result<Vec<Run>>;
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
