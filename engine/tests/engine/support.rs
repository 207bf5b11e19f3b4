//! What several modules need: small databases, their contents, their files.

use std::collections::BTreeMap;
use std::sync::Arc;

use duramen::api::{Database, ScanRange, pairs};
use duramen::storage::Storage;
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Budget, Compression, Db, Error, KeyspaceId, Options, Progress, Result};

/// All pairs by name of keyspace and key.
pub type Contents = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Options that make every structure small, with background work done by the
/// writers, so that a run is the same each time.
pub fn small() -> Options {
    Options {
        memtable_bytes: 1 << 10,
        target_file_bytes: 2 << 10,
        compaction_threads: 2,
        cache_bytes: 16 << 10,
        compression: Compression::None,
        background: Background::Inline,
        ..Options::default()
    }
}

/// Opens the files of `storage`, which stay the caller's.
pub fn open(storage: &MemoryStorage, options: Options) -> Result<Db> {
    Db::open_with(Arc::new(storage.clone()), options)
}

/// Everything in a keyspace, by a scan.
pub fn scan(db: &dyn Database, keyspace: KeyspaceId, range: &ScanRange) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    pairs(db.scan(keyspace, range, None)?)
        .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect()
}

/// Everything in the database.
pub fn contents(db: &dyn Database) -> Result<Contents> {
    let mut contents = Contents::new();
    for (name, id) in db.keyspaces()? {
        for (key, value) in scan(db, id, &ScanRange::all())? {
            contents.insert((name.clone(), key), value);
        }
    }
    Ok(contents)
}

/// Does whatever there is to do.
pub fn settle(db: &Db) {
    while db.maintain(Budget::bytes(1 << 20)).unwrap() == Progress::More {}
}

/// All files and their bytes.
pub fn files(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    storage.files().into_iter().map(|path| (path.clone(), storage.read(&path).unwrap())).collect()
}

/// Files whose paths begin with `prefix`.
pub fn files_in(storage: &MemoryStorage, prefix: &str) -> Vec<String> {
    storage.files().into_iter().filter(|path| path.starts_with(prefix)).collect()
}

/// The file in `dir` that was created last.
pub fn newest_file(storage: &MemoryStorage, dir: &str) -> String {
    files_in(storage, dir).pop().unwrap()
}

/// The variant of an error, to compare.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::Io { .. } => "Io",
        Error::Corruption { .. } => "Corruption",
        Error::InvalidArgument(_) => "InvalidArgument",
        Error::Locked(_) => "Locked",
        Error::Poisoned(_) => "Poisoned",
        Error::Unsupported(_) => "Unsupported",
        Error::Stalled(_) => "Stalled",
        _ => "another",
    }
}

/// Bytes of a frame before its payload; see `duramen::record`.
const FRAME_HEADER_BYTES: usize = 28;

/// Where the frames of a log begin, and where the last one ends.
pub fn frames(log: &[u8]) -> Vec<usize> {
    let mut offsets = vec![0];
    while let Some(header) = log.get(offsets[offsets.len() - 1]..).and_then(|rest| rest.first_chunk::<28>()) {
        let payload = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
        offsets.push(offsets[offsets.len() - 1] + FRAME_HEADER_BYTES + payload);
    }
    assert_eq!(offsets.last(), Some(&log.len()), "not a whole log");
    offsets
}

/// Makes the checksum of the first frame of the log `number` right again.
pub fn reseal_header(log: &mut [u8], number: u64) {
    let end = frames(log)[1];
    let sealed = [&number.to_le_bytes()[..], &0u64.to_le_bytes(), &log[4..end]].concat();
    let crc = crc32fast::hash(&sealed);
    log[..4].copy_from_slice(&crc.to_le_bytes());
}

/// The number in the name of a file.
pub fn number_of(path: &str) -> u64 {
    let name = path.rsplit('/').next().unwrap();
    name.split('.').next().unwrap().parse().unwrap()
}

/// A copy of `storage` with the file at `path` replaced.
pub fn with_file(storage: &MemoryStorage, path: &str, bytes: impl Into<Vec<u8>>) -> MemoryStorage {
    let copy = storage.deep_clone();
    copy.write(path, bytes);
    copy
}

/// A copy of `storage` without the file at `path`.
pub fn without_file(storage: &MemoryStorage, path: &str) -> MemoryStorage {
    let copy = storage.deep_clone();
    copy.remove(path).unwrap();
    copy
}
