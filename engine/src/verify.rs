//! Verification: every byte of every live file is read and checked.

use std::sync::Arc;

use crate::core::Core;
use crate::current::{self, CurrentState};
use crate::error::{Error, Result};
use crate::filename;
use crate::key::FileNumber;
use crate::manifest;
use crate::recovery::BATCH_BYTES_MAX;
use crate::stats::{Problem, VerifyReport};
use crate::sync::lock;
use crate::wal;
use crate::write::WritePath;

/// Checks `CURRENT`, the manifest, the WALs and every SSTable of the versions
/// that are live when it gets to them.
///
/// # Errors
/// Those of storage; damage goes into the report.
pub(crate) fn verify(core: &Core, writes: &WritePath) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    verify_manifest(core, &mut report)?;
    verify_wals(core, writes, &mut report)?;
    for keyspace in core.keyspaces() {
        // Holding the version keeps its files.
        let version = Arc::clone(&keyspace.view().version);
        for handle in version.tables() {
            let checked = handle.table().and_then(|table| table.verify());
            report.entries += handle.meta().entries();
            note(&mut report, checked)?;
        }
    }
    Ok(report)
}

fn verify_manifest(core: &Core, report: &mut VerifyReport) -> Result<()> {
    let manifest = lock(&core.manifest);
    let read = current::read(&*core.storage).map(|state| match state {
        CurrentState::Live(_) => 1,
        CurrentState::Missing | CurrentState::Incomplete => 0,
    });
    let read = read.and_then(|live| match live {
        1 => core.storage.open(filename::CURRENT)?.size(),
        _ => Err(Error::corruption(filename::CURRENT, 0, "the file is missing or cut short")),
    });
    note(report, read)?;
    let loaded = manifest::load(&*core.storage).and_then(|loaded| match loaded {
        Some(loaded) if loaded.state == *manifest.recorded() => Ok(loaded.bytes),
        _ => {
            let path = filename::manifest(manifest.current().manifest);
            Err(Error::corruption(path, 0, "the edits do not add up to the state of the open database"))
        }
    });
    note(report, loaded)
}

fn verify_wals(core: &Core, writes: &WritePath, report: &mut VerifyReport) -> Result<()> {
    // With the write path held still the last WAL does not grow; with the
    // manifest locked none goes.
    writes.with_wal(|current| {
        let manifest = lock(&core.manifest);
        for (number, record) in &manifest.state().wals {
            let written = current.filter(|wal| wal.number() == *number).map(|wal| wal.bytes());
            let expected = written.or(record.end.map(|end| end.bytes));
            note(report, verify_wal(core, *number, expected))?;
        }
        Ok(())
    })
}

/// Replays a WAL into nothing. One that is not sealed must reach `expected`.
fn verify_wal(core: &Core, number: FileNumber, expected: Option<u64>) -> Result<u64> {
    let found = wal::replay(
        &*core.storage,
        number,
        core.database_id,
        expected.is_some(),
        BATCH_BYTES_MAX,
        |_, _| Ok(()),
    )?;
    match expected {
        Some(expected) if expected != found.bytes => {
            let what = format!("{expected} bytes were written, and {} are sound", found.bytes);
            Err(Error::corruption(filename::wal(number), found.bytes, what))
        }
        _ => Ok(found.bytes),
    }
}

/// Counts a file of so many bytes, or reports its damage.
fn note(report: &mut VerifyReport, checked: Result<u64>) -> Result<()> {
    report.files += 1;
    match checked {
        Ok(bytes) => report.bytes += bytes,
        Err(Error::Corruption { file, offset, what }) => report.problems.push(Problem { file, offset, what }),
        Err(error) if error.is_not_found() => {
            let Error::Io { file, .. } = error else { return Ok(()) };
            report.problems.push(Problem { file, offset: 0, what: "the file does not exist".into() });
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
