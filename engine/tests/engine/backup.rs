//! Goal: each backup restores the database as it was, whatever became of the
//! database and of other backups; sharing files saves room and no more. Method:
//! several backups of a changing database, in memory and on disk, restored,
//! damaged, deleted, and interrupted at every moment.

use std::sync::Arc;

use duramen::api::Database;
use duramen::backup::Backups;
use duramen::storage::fault::{Crash, FaultStorage};
use duramen::storage::memory::MemoryStorage;
use duramen::{Db, Durability, Result};

use crate::support::{Contents, contents, files_in, kind, open, small};

fn write(db: &Db, from: u32, to: u32) -> Contents {
    for name in ["first", "second"] {
        let id = db.create_keyspace(name).unwrap();
        for n in from..to {
            db.put(id, format!("key{n:04}").as_bytes(), &[n as u8; 30], Durability::Buffered).unwrap();
        }
    }
    contents(db).unwrap()
}

fn restored(backups: &Backups, id: u64) -> Result<Contents> {
    let target = MemoryStorage::new();
    backups.restore_to(id, Arc::new(target.clone()))?;
    let db = open(&target, small()).unwrap();
    assert!(db.verify().unwrap().problems.is_empty());
    contents(&db)
}

fn ids(backups: &Backups) -> Vec<u64> {
    backups.list().unwrap().into_iter().map(|backup| backup.id).collect()
}

#[test]
fn each_backup_restores_what_was_there() {
    let (storage, room) = (MemoryStorage::new(), MemoryStorage::new());
    let db = open(&storage, small()).unwrap();
    let backups = Backups::with_storage(Arc::new(room.clone()));
    assert!(backups.list().unwrap().is_empty());
    assert!(room.files().is_empty());
    let mut history = Vec::new();
    for round in 0..4 {
        history.push(write(&db, round * 40, round * 40 + 60));
        let info = db.backup(&backups).unwrap();
        assert_eq!(info.id, u64::from(round) + 1);
        assert_eq!(backups.list().unwrap().last(), Some(&info));
        if round == 2 {
            db.compact().unwrap();
        }
    }
    drop(db);
    for (id, expected) in (1..).zip(&history) {
        assert_eq!(&restored(&backups, id).unwrap(), expected);
    }
    backups.delete(2).unwrap();
    assert_eq!(ids(&backups), [1, 3, 4]);
    assert!(files_in(&room, "000002/").is_empty());
    for (id, expected) in [(1, &history[0]), (3, &history[2]), (4, &history[3])] {
        assert_eq!(&restored(&backups, id).unwrap(), expected);
    }
    for missing in [0, 2, 5] {
        assert_eq!(kind(&backups.delete(missing).unwrap_err()), "InvalidArgument");
        assert_eq!(kind(&restored(&backups, missing).unwrap_err()), "InvalidArgument");
    }

    // A restored database goes its own way; its backups come after the others.
    let target = MemoryStorage::new();
    backups.restore_to(1, Arc::new(target.clone())).unwrap();
    let other = open(&target, small()).unwrap();
    let expected = write(&other, 500, 560);
    assert_eq!(other.backup(&backups).unwrap().id, 5);
    assert_eq!(restored(&backups, 5).unwrap(), expected);
    assert_eq!(restored(&backups, 4).unwrap(), history[3]);
}

#[test]
fn damage_is_found_before_anything_is_restored() {
    let (storage, room) = (MemoryStorage::new(), MemoryStorage::new());
    let db = open(&storage, small()).unwrap();
    write(&db, 0, 60);
    db.compact().unwrap();
    write(&db, 60, 65);
    let backups = Backups::with_storage(Arc::new(room.clone()));
    db.backup(&backups).unwrap();
    for path in files_in(&room, "000001/").into_iter().filter(|path| !path.ends_with("CURRENT")) {
        let good = room.read(&path).unwrap();
        let mut bad = good.clone();
        bad[20] ^= 1;
        room.write(&path, bad);
        let target = MemoryStorage::new();
        let error = backups.restore_to(1, Arc::new(target.clone())).unwrap_err();
        assert_eq!(kind(&error), "Corruption", "{path}: {error}");
        assert!(target.files().is_empty());
        assert!(backups.verify(1).map_or(true, |report| !report.problems.is_empty()));
        let listed = backups.list().unwrap();
        assert_eq!(listed[0].problem.is_some(), path.contains("manifest"), "{listed:?}");
        // The next backup does not rely on it.
        let second = db.backup(&backups).unwrap().id;
        room.write(&path, good);
        assert!(backups.verify(second).unwrap().problems.is_empty());
        restored(&backups, second).unwrap();
        backups.delete(second).unwrap();
    }
}

#[test]
fn a_database_is_no_directory_of_backups() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    write(&db, 0, 10);
    let before = storage.files();
    let backups = Backups::with_storage(Arc::new(storage.clone()));
    assert_eq!(kind(&db.backup(&backups).unwrap_err()), "InvalidArgument");
    assert_eq!(kind(&backups.list().unwrap_err()), "InvalidArgument");
    assert_eq!(storage.files(), before);
    // Nor is a directory of backups a database.
    let room = MemoryStorage::new();
    db.backup(&Backups::with_storage(Arc::new(room.clone()))).unwrap();
    assert_eq!(kind(&open(&room, small()).unwrap_err()), "InvalidArgument");
}

#[test]
fn crashes_leave_whole_backups_and_what_the_next_one_clears() {
    let db = open(&MemoryStorage::new(), small()).unwrap();
    let room = FaultStorage::new(1);
    let backups = Backups::with_storage(Arc::new(room.clone()));
    let mut history = vec![write(&db, 0, 60)];
    db.backup(&backups).unwrap();
    let first = room.moment();
    history.push(write(&db, 60, 90));
    db.backup(&backups).unwrap();
    let second = room.moment();
    backups.delete(1).unwrap();
    let deleted = room.moment();
    let mut replay = room.replay();
    while replay.advance() {
        let at = replay.moment();
        for crash in [Crash::Kill, Crash::LoseAll, Crash::LoseSome(at as u64), Crash::TearLast(at as u64)] {
            let image = replay.crash(crash);
            let backups = Backups::with_storage(Arc::new(image.clone()));
            let found = ids(&backups);
            let whence = || format!("{crash:?} at {at}, after {}: {found:?}", replay.last_change());
            assert!(found.contains(&1) || at < first || at > second, "{}", whence());
            assert!(found.contains(&2) || at < second, "{}", whence());
            assert!(!found.contains(&1) || at < deleted, "{}", whence());
            for id in &found {
                assert_eq!(restored(&backups, *id).unwrap(), history[*id as usize - 1], "{}", whence());
            }
            if at.is_multiple_of(7) || at > second {
                let next = db.backup(&backups).unwrap().id;
                assert_eq!(restored(&backups, next).unwrap(), history[1], "{}", whence());
                let listed: Vec<String> = ids(&backups).into_iter().map(|id| format!("{id:06}/")).collect();
                let stray = |path: &String| !listed.iter().any(|dir| path.starts_with(dir));
                assert!(!image.files().iter().any(stray), "{}: {:?}", whence(), image.files());
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn on_disk_backups_share_files_with_each_other_and_not_with_the_database() {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn inodes(dir: &Path) -> Vec<u64> {
        let mut found = Vec::new();
        for keyspace in fs::read_dir(dir.join("sst")).unwrap() {
            for table in fs::read_dir(keyspace.unwrap().path()).unwrap() {
                found.push(table.unwrap().metadata().unwrap().ino());
            }
        }
        found
    }

    let directory = tempfile::tempdir().unwrap();
    let (path, room) = (directory.path().join("db"), directory.path().join("backups"));
    let db = Db::open(&path, small()).unwrap();
    let backups = Backups::new(&room);
    let first = write(&db, 0, 80);
    db.compact().unwrap();
    db.backup(&backups).unwrap();
    let second = write(&db, 80, 90);
    db.backup(&backups).unwrap();
    let [ours, one, two] = [path.clone(), room.join("000001"), room.join("000002")].map(|dir| inodes(&dir));
    assert!(one.len() > 3 && one.iter().all(|inode| two.contains(inode)), "shared");
    assert!(!one.iter().chain(&two).any(|inode| ours.contains(inode)), "not with the database");

    backups.delete(1).unwrap();
    assert!(!room.join("000001").exists());
    drop(db);
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(kind(&backups.restore(1, &path).unwrap_err()), "InvalidArgument");
    backups.restore(2, &path).unwrap();
    assert_eq!(kind(&backups.restore(2, &path).unwrap_err()), "InvalidArgument");
    let db = Db::open(&path, small()).unwrap();
    assert_eq!(contents(&db).unwrap(), second);
    assert_ne!(first, second);
    assert!(!inodes(&path).iter().any(|inode| two.contains(inode)), "a copy");

    // A link in the place of a backup is none.
    std::os::unix::fs::symlink(&path, room.join("000007")).unwrap();
    assert!(backups.restore(7, directory.path().join("other")).is_err());
    assert!(!directory.path().join("other").exists());
}
