//! File names from ids and back.
//!
//! ```text
//! CURRENT                              which manifest is live
//! LOCK                                 held by the process that has the database open
//! CHECKPOINT                           this is not complete yet, unless CURRENT is
//! checkpoint.tmp/                      what a sandbox makes for its host to take
//! manifest/000007.log                  version edits
//! wal/000012.log                       batches
//! sst/<keyspace id>/000009.parquet     one SSTable
//! ```
//!
//! A number has at least six digits, padded with zeros; a keyspace id has no
//! padding. Invariant: [`parse`] accepts exactly what the builders make, so a
//! name maps to one id and back. Everything else in the directory belongs to
//! somebody else and is left alone.

use crate::key::{FileNumber, KeyspaceId};

/// The file that names the live manifest.
pub const CURRENT: &str = "CURRENT";
/// The file whose lock keeps a second process out.
pub const LOCK: &str = "LOCK";
/// The file that marks a checkpoint in the making; without contents.
pub const CHECKPOINT: &str = "CHECKPOINT";
/// Directory of the manifests.
pub const MANIFEST_DIR: &str = "manifest";
/// Directory of the WALs.
pub const WAL_DIR: &str = "wal";
/// Directory of the directories of SSTables, one for each keyspace.
pub const SST_DIR: &str = "sst";

const LOG_SUFFIX: &str = ".log";
const SST_SUFFIX: &str = ".parquet";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// [`CURRENT`].
    Current,
    /// [`LOCK`].
    Lock,
    /// A manifest.
    Manifest(FileNumber),
    /// A WAL.
    Wal(FileNumber),
    /// An SSTable of a keyspace.
    Sst(KeyspaceId, FileNumber),
}

/// Path of a manifest.
pub fn manifest(number: FileNumber) -> String {
    format!("{MANIFEST_DIR}/{:06}{LOG_SUFFIX}", number.0)
}

/// Path of a WAL.
pub fn wal(number: FileNumber) -> String {
    format!("{WAL_DIR}/{:06}{LOG_SUFFIX}", number.0)
}

/// Directory of the SSTables of a keyspace.
pub fn sst_dir(keyspace: KeyspaceId) -> String {
    format!("{SST_DIR}/{}", keyspace.0)
}

/// Path of an SSTable.
pub fn sst(keyspace: KeyspaceId, number: FileNumber) -> String {
    format!("{SST_DIR}/{}/{:06}{SST_SUFFIX}", keyspace.0, number.0)
}

/// What `path`, relative to the database directory, stands for; `None` for a
/// name that this engine does not make.
pub fn parse(path: &str) -> Option<FileKind> {
    match path.split_once('/') {
        None if path == CURRENT => Some(FileKind::Current),
        None if path == LOCK => Some(FileKind::Lock),
        Some((MANIFEST_DIR, name)) => parse_log(name).map(FileKind::Manifest),
        Some((WAL_DIR, name)) => parse_log(name).map(FileKind::Wal),
        Some((SST_DIR, rest)) => {
            let (keyspace, name) = rest.split_once('/')?;
            Some(FileKind::Sst(parse_keyspace(keyspace)?, parse_sst(name)?))
        }
        _ => None,
    }
}

/// Directory of a backup among others.
pub fn backup(id: u64) -> String {
    format!("{id:06}")
}

/// Id of a backup by the name of its directory.
pub fn parse_backup(name: &str) -> Option<u64> {
    parse_number(name).map(|number| number.0)
}

/// Number of a manifest or WAL by its name within its directory.
pub fn parse_log(name: &str) -> Option<FileNumber> {
    parse_number(name.strip_suffix(LOG_SUFFIX)?)
}

/// Number of an SSTable by its name within its directory.
pub fn parse_sst(name: &str) -> Option<FileNumber> {
    parse_number(name.strip_suffix(SST_SUFFIX)?)
}

/// Id of a keyspace by the name of its directory within [`SST_DIR`].
pub fn parse_keyspace(name: &str) -> Option<KeyspaceId> {
    let id = KeyspaceId(name.parse().ok()?);
    (id.0.to_string() == name).then_some(id)
}

fn parse_number(digits: &str) -> Option<FileNumber> {
    let number: u64 = digits.parse().ok()?;
    (format!("{number:06}") == digits).then_some(FileNumber(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_ids_and_back() {
        for number in [0, 7, 999_999, 1_000_000, u64::MAX].map(FileNumber) {
            assert_eq!(parse(&manifest(number)), Some(FileKind::Manifest(number)));
            assert_eq!(parse(&wal(number)), Some(FileKind::Wal(number)));
            for keyspace in [0, 1, u32::MAX].map(KeyspaceId) {
                let path = sst(keyspace, number);
                assert_eq!(parse(&path), Some(FileKind::Sst(keyspace, number)));
                assert!(path.starts_with(&format!("{}/", sst_dir(keyspace))));
            }
        }
        assert_eq!(wal(FileNumber(12)), "wal/000012.log");
        assert_eq!(sst(KeyspaceId(3), FileNumber(9)), "sst/3/000009.parquet");
        assert_eq!(parse(CURRENT), Some(FileKind::Current));
        assert_eq!(parse(LOCK), Some(FileKind::Lock));
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for path in [
            "",
            "current",
            "CURRENT.tmp",
            "CURRENT/",
            "wal",
            "wal/",
            "wal/12.log",
            "wal/0000012.log",
            "wal/+00012.log",
            "wal/-00012.log",
            "wal/000012.log.bak",
            "wal/000012.LOG",
            "wal/ 00012.log",
            "wal/18446744073709551616.log",
            "wal/a/000012.log",
            "wal//000012.log",
            "/wal/000012.log",
            "manifest/000012.parquet",
            "sst/000009.parquet",
            "sst/01/000009.parquet",
            "sst/+1/000009.parquet",
            "sst/4294967296/000009.parquet",
            "sst/1/000009.log",
            "sst/1/../1/000009.parquet",
            "wal/..",
            "wal/\u{0661}\u{0661}\u{0661}\u{0661}\u{0661}\u{0661}.log",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
