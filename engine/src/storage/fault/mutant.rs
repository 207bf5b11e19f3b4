//! Syncs by what they protect, and mutants that leave one out.
//!
//! A suite that claims to test crash safety must fail when any one sync of the
//! engine does nothing. So that this can be shown without touching the engine,
//! the storage tells the places apart where the engine syncs, from what it sees:
//! the call, the kind of file, and what was written before.

use std::fmt;

use super::disk::{Disk, Inode};
use super::{Operation, Phase};
use crate::filename::{self, FileKind};
use crate::record::FrameKind;

/// A place where the engine syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncPoint {
    /// The header of a new WAL, before the manifest names it.
    WalHeader,
    /// The name of a new WAL, before the manifest names it.
    WalName,
    /// The batches of a WAL, before a commit or a call of `sync` is acknowledged.
    WalCommit,
    /// The batches of a WAL, before its seal claims that they are durable.
    WalBeforeSeal,
    /// The seal of a WAL, before a later WAL takes batches.
    WalSeal,
    /// A WAL that was cut back after a failed append, before it goes on.
    WalCutBack,
    /// A WAL that a killed process left, before the manifest says where it ends.
    WalRecovered,
    /// The first edit of a new manifest, before `CURRENT` leads to it.
    ManifestNew,
    /// The name of a new manifest, before `CURRENT` leads to it.
    ManifestName,
    /// A version edit, before it takes effect.
    ManifestEdit,
    /// A manifest that was cut back after a failed append.
    ManifestCutBack,
    /// The bytes of a new `CURRENT`.
    CurrentNew,
    /// A slot of `CURRENT` that was overwritten.
    CurrentSlot,
    /// `CURRENT` as a killed process left it, before a slot is overwritten.
    CurrentRecovered,
    /// The names of the directories of a new database, before `CURRENT` exists.
    RootDirectories,
    /// The name of a new `CURRENT`, which ends the creation.
    RootCurrent,
    /// The names that a killed process left in the database directory.
    RootRecovered,
    /// The name of a keyspace's directory, before the manifest has the keyspace.
    KeyspaceName,
    /// An SSTable of a flush, before the manifest names it. A long one is synced
    /// while it is written, too; that only makes this sync shorter.
    FlushTable,
    /// The name of an SSTable of a flush, before the manifest has it.
    FlushName,
    /// An SSTable of a compaction, before the manifest names it; long ones as of
    /// a flush.
    CompactionTable,
    /// The name of an SSTable of a compaction, before the manifest has it.
    CompactionName,
}

impl SyncPoint {
    /// Every place.
    pub const ALL: [SyncPoint; 22] = [
        SyncPoint::WalHeader,
        SyncPoint::WalName,
        SyncPoint::WalCommit,
        SyncPoint::WalBeforeSeal,
        SyncPoint::WalSeal,
        SyncPoint::WalCutBack,
        SyncPoint::WalRecovered,
        SyncPoint::ManifestNew,
        SyncPoint::ManifestName,
        SyncPoint::ManifestEdit,
        SyncPoint::ManifestCutBack,
        SyncPoint::CurrentNew,
        SyncPoint::CurrentSlot,
        SyncPoint::CurrentRecovered,
        SyncPoint::RootDirectories,
        SyncPoint::RootCurrent,
        SyncPoint::RootRecovered,
        SyncPoint::KeyspaceName,
        SyncPoint::FlushTable,
        SyncPoint::FlushName,
        SyncPoint::CompactionTable,
        SyncPoint::CompactionName,
    ];

    /// The place of a sync of the file `path`; `first` says that it is the
    /// first of this file.
    pub(super) fn of_file(
        operation: Operation,
        path: &str,
        (inode, first): (Inode, bool),
        disk: &Disk,
        phase: Phase,
    ) -> Option<SyncPoint> {
        let recovered = operation == Operation::Sync;
        Some(match filename::parse(path)? {
            FileKind::Wal(_) if recovered => SyncPoint::WalRecovered,
            FileKind::Wal(_) if disk.was_cut(inode) => SyncPoint::WalCutBack,
            FileKind::Wal(_) if first => SyncPoint::WalHeader,
            FileKind::Wal(_) if ends_with_seal(inode, disk) => SyncPoint::WalSeal,
            FileKind::Wal(_) if phase == Phase::Acknowledge => SyncPoint::WalCommit,
            FileKind::Wal(_) => SyncPoint::WalBeforeSeal,
            FileKind::Manifest(_) if disk.was_cut(inode) => SyncPoint::ManifestCutBack,
            FileKind::Manifest(_) if first => SyncPoint::ManifestNew,
            FileKind::Manifest(_) => SyncPoint::ManifestEdit,
            FileKind::Current if recovered => SyncPoint::CurrentRecovered,
            FileKind::Current if operation == Operation::Overwrite => SyncPoint::CurrentSlot,
            FileKind::Current => SyncPoint::CurrentNew,
            FileKind::Sst(..) if phase == Phase::Flush => SyncPoint::FlushTable,
            FileKind::Sst(..) if phase == Phase::Compact => SyncPoint::CompactionTable,
            FileKind::Sst(..) | FileKind::Lock => return None,
        })
    }

    /// The place of a sync of the directory `path`; `created` says that
    /// `CURRENT` was made by this process.
    pub(super) fn of_dir(path: &str, disk: &Disk, created: bool, phase: Phase) -> Option<SyncPoint> {
        Some(match path {
            "" if created => SyncPoint::RootCurrent,
            "" if disk.node(filename::CURRENT).is_some() => SyncPoint::RootRecovered,
            "" => SyncPoint::RootDirectories,
            filename::MANIFEST_DIR => SyncPoint::ManifestName,
            filename::WAL_DIR => SyncPoint::WalName,
            filename::SST_DIR => SyncPoint::KeyspaceName,
            _ if phase == Phase::Flush => SyncPoint::FlushName,
            _ if phase == Phase::Compact => SyncPoint::CompactionName,
            _ => return None,
        })
    }
}

/// Seals are written alone, by one call.
fn ends_with_seal(inode: Inode, disk: &Disk) -> bool {
    let kind = disk.last_write(inode).and_then(|frame| frame.get(8));
    kind == Some(&(FrameKind::Seal as u8))
}

/// What a delayed sync waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The next sync at this place has been done.
    Synced(SyncPoint),
    /// A file has been removed.
    Removed,
}

/// A storage that is wrong in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Syncs at this place do nothing and say that they did.
    Skip(SyncPoint),
    /// Syncs at this place answer at once and are done later, so that what the
    /// engine does in order reaches the disk in another one.
    Delay(SyncPoint, Until),
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mutant::Skip(point) => write!(f, "no {point:?}"),
            Mutant::Delay(point, Until::Synced(other)) => write!(f, "{point:?} after {other:?}"),
            Mutant::Delay(point, Until::Removed) => write!(f, "{point:?} after a removal"),
        }
    }
}
