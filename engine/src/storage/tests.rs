//! Goal: every storage keeps the promises of the trait. Method: one behaviour
//! test run over each implementation, then what only one of them can get wrong.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;

use super::fault::FaultStorage;
use super::memory::MemoryStorage;
use super::trace::TraceStorage;
use super::{DirSync, Storage};
use crate::error::Error;

fn kind(result: Result<impl Sized, Error>) -> ErrorKind {
    match result.err() {
        Some(Error::Io { source, .. }) => source.kind(),
        other => panic!("not an Io error: {other:?}"),
    }
}

fn behaves(storage: &dyn Storage) {
    // Nothing is there, and looking creates nothing.
    assert!(storage.list("").unwrap().is_empty());
    assert!(storage.list("wal").unwrap().is_empty());
    assert!(storage.open("wal/000001.log").unwrap_err().is_not_found());

    for _ in 0..2 {
        storage.create_dir("").unwrap();
        storage.create_dir("wal").unwrap();
    }
    assert_eq!(kind(storage.create_dir("sst/1")), ErrorKind::NotFound);
    storage.create_dir("sst").unwrap();
    storage.create_dir("sst/1").unwrap();

    // Appending, and reading what is there while it grows.
    let path = "wal/000001.log";
    let mut file = storage.create(path).unwrap();
    assert!(file.is_empty());
    let open = storage.open(path).unwrap();
    assert_eq!(open.size().unwrap(), 0);
    file.append(b"hello ").unwrap();
    file.append(b"").unwrap();
    file.append(b"world").unwrap();
    file.sync_data().unwrap();
    assert_eq!((file.len(), open.size().unwrap()), (11, 11));
    assert_eq!(&open.read_at(0, 11).unwrap()[..], b"hello world");
    assert_eq!(&open.read_at(6, 3).unwrap()[..], b"wor");
    let mut into = *b"....";
    open.read_into(6, &mut into).unwrap();
    assert_eq!(&into, b"worl");
    assert!(open.read_at(11, 0).unwrap().is_empty());
    for (offset, len) in [(11, 1), (0, 12), (u64::MAX, 1), (u64::MAX - 3, 9), (0, 2 << 20), (1 << 63, 1)] {
        let into = open.read_into(offset, &mut vec![0; len]).map(|()| Bytes::new());
        for answer in [open.read_at(offset, len), into] {
            match answer {
                Err(Error::Corruption { file, offset: at, .. }) => assert_eq!((&*file, at), (path, offset)),
                other => panic!("read of {len} bytes at {offset}: {other:?}"),
            }
        }
    }

    // Cutting back, and going on from there.
    file.truncate(5).unwrap();
    assert_eq!((file.len(), open.size().unwrap()), (5, 5));
    file.append(b"!").unwrap();
    assert_eq!(&open.read_at(0, 6).unwrap()[..], b"hello!");
    assert_eq!(kind(file.truncate(7)), ErrorKind::InvalidInput);

    // More than hosts take in one call.
    let long: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let mut other = storage.create("sst/1/000002.parquet").unwrap();
    other.append(&long).unwrap();
    assert_eq!(storage.open("sst/1/000002.parquet").unwrap().read_at(0, long.len()).unwrap(), long);

    // In place, and only within the file.
    storage.overwrite(path, 4, b"OK").unwrap();
    assert_eq!(&open.read_at(0, 6).unwrap()[..], b"hellOK");
    assert_eq!(kind(storage.overwrite(path, 5, b"xy")), ErrorKind::InvalidInput);
    assert_eq!(kind(storage.overwrite(path, u64::MAX, b"x")), ErrorKind::InvalidInput);
    assert!(storage.overwrite("CURRENT", 0, b"x").unwrap_err().is_not_found());

    // Names.
    assert_eq!(kind(storage.create(path)), ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.create("manifest/000001.log")), ErrorKind::NotFound);
    for directory in ["wal", "sst/1"] {
        assert!(storage.open(directory).is_err());
        assert!(storage.create(directory).is_err());
        assert!(storage.remove(directory).is_err());
    }
    assert!(storage.create_dir(path).is_err());
    let mut names = storage.list("").unwrap();
    names.sort();
    assert_eq!(names, ["sst", "wal"]);
    assert_eq!(storage.list("sst").unwrap(), ["1"]);
    assert_eq!(storage.list("sst/1").unwrap(), ["000002.parquet"]);
    assert!(storage.list(path).is_err());
    if cfg!(not(target_family = "wasm")) {
        for dir in ["", "wal", "sst/1"] {
            assert_eq!(storage.sync_dir(dir).unwrap(), DirSync::Done);
        }
    }
    assert!(storage.sync_dir("manifest").unwrap_err().is_not_found());

    // A removed file stays readable for whoever has it open.
    storage.remove(path).unwrap();
    assert!(storage.remove(path).unwrap_err().is_not_found());
    assert!(storage.list("wal").unwrap().is_empty());
    assert_eq!(&open.read_at(0, 6).unwrap()[..], b"hellOK");

    // One at a time.
    let lock = storage.lock().unwrap();
    assert!(matches!(storage.lock(), Err(Error::Locked(_))));
    assert!(matches!(storage.lock_shared(), Err(Error::Locked(_))));
    drop(lock);
    drop(storage.lock().unwrap());

    // Readers keep writers out, and not each other.
    let readers = [storage.lock_shared().unwrap(), storage.lock_shared().unwrap()];
    for reader in readers {
        assert!(matches!(storage.lock(), Err(Error::Locked(_))));
        drop(reader);
    }
    drop(storage.lock().unwrap());
}

#[test]
fn memory_behaves() {
    behaves(&MemoryStorage::new());
}

#[test]
fn fault_storage_behaves() {
    behaves(&FaultStorage::new(1));
}

#[test]
fn traced_storage_behaves() {
    behaves(&TraceStorage::new(Arc::new(MemoryStorage::new())));
}

#[test]
fn memory_is_shared_by_clones_and_not_by_deep_clones() {
    let storage = MemoryStorage::new();
    storage.write("sst/7/000001.parquet", *b"one");
    let (shared, copy) = (storage.clone(), storage.deep_clone());
    let _lock = storage.lock().unwrap();
    assert!(matches!(shared.lock(), Err(Error::Locked(_))));
    assert!(copy.lock().is_ok());
    let open = storage.open("sst/7/000001.parquet").unwrap();
    storage.write("sst/7/000001.parquet", *b"two!");
    assert_eq!(&open.read_at(0, 3).unwrap()[..], b"one");
    assert_eq!(shared.read("sst/7/000001.parquet").unwrap(), b"two!");
    assert_eq!(copy.read("sst/7/000001.parquet").unwrap(), b"one");
    assert_eq!(shared.files(), ["sst/7/000001.parquet"]);
    assert_eq!(shared.list("sst").unwrap(), ["7"]);
    assert_eq!(shared.read("sst/7"), None);
}

#[test]
fn trace_tells_the_calls_in_order() {
    let storage = TraceStorage::new(Arc::new(MemoryStorage::new()));
    let work = || -> crate::error::Result<()> {
        let _lock = storage.lock()?;
        storage.create_dir("")?;
        storage.create_dir("wal")?;
        let mut file = storage.create("wal/000003.log")?;
        file.append(b"abc")?;
        file.append(b"de")?;
        file.truncate(3)?;
        file.sync_data()?;
        storage.sync_dir("wal")?;
        storage.overwrite("wal/000003.log", 1, b"B")?;
        let file = storage.open("wal/000003.log")?;
        file.size()?;
        file.read_at(1, 2)?;
        assert!(file.read_at(1, 3).is_err());
        storage.list("wal")?;
        storage.remove("wal/000003.log")?;
        assert!(storage.remove("wal/000003.log").is_err());
        storage.sync_dir("").map(drop)
    };
    work().unwrap();
    let changes = "lock\n\
        create_dir .\n\
        create_dir wal\n\
        create wal/000003.log\n\
        append wal/000003.log 3 bytes at 0\n\
        append wal/000003.log 2 bytes at 3\n\
        truncate wal/000003.log to 3 bytes\n\
        sync wal/000003.log\n\
        sync_dir wal\n\
        overwrite wal/000003.log 1 bytes at 1\n";
    let looks = "open wal/000003.log\n\
        size wal/000003.log\n\
        read wal/000003.log 2 bytes at 1\n\
        read wal/000003.log 3 bytes at 1: failed\n\
        list wal\n";
    let end = "remove wal/000003.log\n\
        remove wal/000003.log: failed\n\
        sync_dir .\n\
        unlock\n";
    assert_eq!(storage.take(), format!("{changes}{looks}{end}"));
    assert_eq!(storage.take(), "");
    work().unwrap();
    assert_eq!(storage.take_changes(), format!("{changes}{end}"));
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::fs::{self, File};
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::fs::FsStorage;
    use super::*;

    fn storage_in(dir: &Path) -> FsStorage {
        let storage = FsStorage::new(dir);
        storage.create_dir("").unwrap();
        storage
    }

    #[test]
    fn fs_behaves() {
        let dir = tempfile::tempdir().unwrap();
        behaves(&TraceStorage::new(Arc::new(FsStorage::new(dir.path().join("deep/er/db")))));
    }

    #[test]
    fn syncing_a_file_leaves_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage_in(dir.path());
        for len in [0, 1, 256 << 10, 600_001] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| (i / 7) as u8).collect();
            fs::write(dir.path().join("CURRENT"), &bytes).unwrap();
            storage.sync("CURRENT").unwrap();
            assert_eq!(fs::read(dir.path().join("CURRENT")).unwrap(), bytes);
        }
        assert!(storage.sync("LOCK").unwrap_err().is_not_found());
    }

    #[test]
    fn looking_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let storage = FsStorage::new(&path);
        assert!(storage.list("").unwrap().is_empty());
        assert!(storage.open("CURRENT").unwrap_err().is_not_found());
        assert!(storage.lock().unwrap_err().is_not_found());
        assert!(storage.create("CURRENT").unwrap_err().is_not_found());
        assert!(!path.exists());
        File::create(&path).unwrap();
        assert_eq!(kind(storage.create_dir("")), ErrorKind::NotADirectory);
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("000001.log"), "theirs").unwrap();
        let db = dir.path().join("db");
        let storage = storage_in(&db);
        storage.create_dir("manifest").unwrap();
        symlink(&outside, db.join("wal")).unwrap();
        symlink(outside.join("000001.log"), db.join("manifest/000001.log")).unwrap();
        symlink(outside.join("new"), db.join("manifest/000002.log")).unwrap();
        symlink(outside.join("lock"), db.join("LOCK")).unwrap();

        for path in ["wal/000001.log", "manifest/000001.log"] {
            assert!(storage.open(path).is_err());
            assert!(storage.overwrite(path, 0, b"mine").is_err());
        }
        let text = storage.open("manifest/000001.log").unwrap_err().to_string();
        assert!(text.contains("manifest/000001.log") && text.contains("symbolic link"), "{text}");
        assert!(storage.create("manifest/000002.log").is_err());
        assert!(storage.create("wal/000002.log").is_err());
        assert!(storage.remove("wal/000001.log").is_err());
        assert!(storage.list("wal").is_err());
        assert!(storage.sync_dir("wal").is_err());
        assert!(storage.create_dir("wal").is_err());
        assert!(storage.lock().is_err());
        // Removing a link removes the link.
        storage.remove("manifest/000001.log").unwrap();
        assert_eq!(fs::read(outside.join("000001.log")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_the_database_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let direct = storage_in(&real);
        symlink(&real, dir.path().join("link")).unwrap();
        let linked = storage_in(&dir.path().join("link"));
        linked.create("CURRENT").unwrap().append(b"x").unwrap();
        assert_eq!(direct.open("CURRENT").unwrap().size().unwrap(), 1);
        // Two spellings are one database.
        let _lock = direct.lock().unwrap();
        assert!(matches!(linked.lock(), Err(Error::Locked(text)) if text.contains("this process")));
    }

    #[test]
    fn only_regular_files_are_opened() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let dir = tempfile::tempdir().unwrap();
        let storage = storage_in(dir.path());
        storage.create_dir("wal").unwrap();
        let fifo = dir.path().join("wal/000001.log");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        // None of these waits for somebody at the other end.
        assert_eq!(kind(storage.open("wal/000001.log")), ErrorKind::InvalidInput);
        assert!(storage.overwrite("wal/000001.log", 0, b"x").is_err());
        assert_eq!(kind(storage.create("wal/000001.log")), ErrorKind::AlreadyExists);
        fs::create_dir(dir.path().join("wal/000002.log")).unwrap();
        assert_eq!(kind(storage.open("wal/000002.log")), ErrorKind::InvalidInput);
        fs::create_dir(dir.path().join("LOCK")).unwrap();
        assert!(storage.lock().is_err());
        assert!(storage.lock().is_err(), "the failed attempt must not count as a holder");
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "x").unwrap();
        let storage = storage_in(&dir.path().join("db"));
        for path in ["../outside", "/etc/passwd", "wal/../../outside", "a//b", ".", "..", "", "a/", "a\0b"] {
            assert!(
                matches!(storage.open(path), Err(Error::InvalidArgument(_) | Error::Io { .. })),
                "{path}"
            );
            assert!(storage.remove(path).is_err(), "{path}");
        }
        assert!(storage.list("..").is_err());
        assert!(dir.path().join("outside").exists());
    }

    #[test]
    fn a_lock_elsewhere_keeps_us_out() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage_in(dir.path());
        drop(storage.lock().unwrap());
        // A file description of its own, as another process would have.
        let mut other = File::options().read(true).write(true).open(dir.path().join("LOCK")).unwrap();
        other.try_lock().unwrap();
        other.set_len(0).unwrap();
        other.seek(SeekFrom::Start(0)).unwrap();
        other.write_all(b"4711\n").unwrap();
        match storage.lock() {
            Err(Error::Locked(text)) => assert!(text.contains("process 4711"), "{text}"),
            other => panic!("{other:?}"),
        }
        drop(other);
        let lock = storage.lock().unwrap();
        let other = File::options().write(true).open(dir.path().join("LOCK")).unwrap();
        assert!(other.try_lock().is_err());
        drop(lock);
        other.try_lock().unwrap();
        assert!(dir.path().join("LOCK").exists(), "the lock file is never deleted");
    }

    #[test]
    fn a_shared_lock_changes_nothing_and_keeps_writers_out() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage_in(dir.path());
        let reader = storage.lock_shared().unwrap();
        assert!(!dir.path().join("LOCK").exists(), "none is made");
        drop(reader);
        drop(storage.lock().unwrap());
        fs::write(dir.path().join("LOCK"), "4711\n").unwrap();

        let other = File::options().read(true).open(dir.path().join("LOCK")).unwrap();
        other.try_lock_shared().unwrap();
        drop(storage.lock_shared().unwrap());
        match storage.lock() {
            Err(Error::Locked(text)) => assert!(text.contains("for reading"), "{text}"),
            other => panic!("{other:?}"),
        }
        drop(other);
        let writer = File::options().read(true).open(dir.path().join("LOCK")).unwrap();
        writer.try_lock().unwrap();
        match storage.lock_shared() {
            Err(Error::Locked(text)) => assert!(text.contains("process 4711"), "{text}"),
            other => panic!("{other:?}"),
        }
        drop(writer);
        let reader = storage.lock_shared().unwrap();
        let writer = File::options().write(true).open(dir.path().join("LOCK")).unwrap();
        assert!(writer.try_lock().is_err());
        drop(reader);
        writer.try_lock().unwrap();
        assert_eq!(fs::read(dir.path().join("LOCK")).unwrap(), b"4711\n");
    }

    #[test]
    fn offsets_past_4_gib() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage_in(dir.path());
        let size = (5 << 30) + 3;
        let file = File::create(dir.path().join("CURRENT")).unwrap();
        // A hole, which takes no room.
        file.set_len(size).unwrap();
        storage.overwrite("CURRENT", size - 3, b"end").unwrap();
        let file = storage.open("CURRENT").unwrap();
        assert_eq!(file.size().unwrap(), size);
        assert_eq!(&file.read_at(size - 4, 4).unwrap()[..], b"\0end");
    }
}
