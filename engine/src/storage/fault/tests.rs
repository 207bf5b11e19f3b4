//! Goal: crashes leave what they may and nothing else, faults fail what they
//! must, and seeds replay. Method: small programs against the storage alone.

use super::*;

const WAL: &str = "wal/000003.log";

/// A synced file with unsynced bytes after.
fn half_synced() -> (FaultStorage, Box<dyn AppendFile>) {
    let storage = FaultStorage::new(1);
    storage.create_dir("wal").unwrap();
    storage.sync_dir("").unwrap();
    let mut file = storage.create(WAL).unwrap();
    file.append(b"synced").unwrap();
    file.sync_data().unwrap();
    storage.sync_dir("wal").unwrap();
    file.append(b" unsynced").unwrap();
    (storage, file)
}

fn text(storage: &FaultStorage) -> Option<String> {
    storage.read(WAL).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn crashes_keep_what_was_synced() {
    let (storage, _file) = half_synced();
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), "synced");
    let killed = storage.crash(Crash::Kill);
    assert_eq!(text(&killed).unwrap(), "synced unsynced");
    // What the kill left is still not durable.
    assert_eq!(text(&killed.crash(Crash::LoseAll)).unwrap(), "synced");
    killed.sync(WAL).unwrap();
    assert_eq!(text(&killed.crash(Crash::LoseAll)).unwrap(), "synced unsynced");
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), "synced", "the kill left a copy");

    let found = |crash: fn(u64) -> Crash| -> BTreeSet<String> {
        (0..500).map(|seed| text(&storage.crash(crash(seed))).unwrap()).collect()
    };
    let zeros = format!("synced{}", "\0".repeat(9));
    assert_eq!(found(Crash::LoseSome), ["synced".to_owned(), zeros, "synced unsynced".to_owned()].into());
    let prefixes: BTreeSet<String> = (6..=15).map(|len| "synced unsynced"[..len].to_owned()).collect();
    assert_eq!(found(Crash::TearLast), prefixes);
}

#[test]
fn names_need_their_directory() {
    let (storage, _file) = half_synced();
    let mut replay = storage.replay();
    let mut first_moment = None;
    loop {
        if first_moment.is_none() && text(&replay.crash(Crash::LoseAll)).is_some() {
            first_moment = Some(replay.last_change());
        }
        if !replay.advance() {
            break;
        }
    }
    assert_eq!(first_moment.unwrap(), "sync_dir wal");
    assert_eq!(replay.moment(), storage.moment());

    storage.remove(WAL).unwrap();
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), "synced");
    assert_eq!(text(&storage.crash(Crash::Kill)), None);
    let found: BTreeSet<bool> =
        (0..50).map(|seed| text(&storage.crash(Crash::LoseSome(seed))).is_some()).collect();
    assert_eq!(found.len(), 2);
    storage.sync_dir("wal").unwrap();
    assert_eq!(text(&storage.crash(Crash::LoseAll)), None);
}

#[test]
fn a_file_is_lost_with_its_directory() {
    let storage = FaultStorage::new(1);
    storage.create_dir("wal").unwrap();
    storage.create(WAL).unwrap();
    storage.sync_dir("wal").unwrap();
    assert_eq!(text(&storage.crash(Crash::LoseAll)), None);
    storage.sync_dir("").unwrap();
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), "");
}

#[test]
fn a_file_that_nothing_was_written_to_reads_as_empty() {
    let storage = FaultStorage::new(1);
    storage.create("CURRENT").unwrap();
    assert_eq!(storage.read("CURRENT"), Some(Vec::new()));
    let file = storage.open("CURRENT").unwrap();
    assert!(file.read_at(0, 0).unwrap().is_empty());
    assert!(file.read_at(0, 1).is_err());
}

#[test]
fn names_in_order_are_synced_with_any_file() {
    let storage = FaultStorage::with_names(1, Names::InOrder);
    storage.create_dir("wal").unwrap();
    let mut file = storage.create(WAL).unwrap();
    storage.create("wal/000004.log").unwrap();
    assert_eq!(storage.sync_dir("wal").unwrap(), DirSync::Unsupported);
    assert!(storage.crash(Crash::LoseAll).files().is_empty());
    for seed in 0..50 {
        let files = storage.crash(Crash::LoseSome(seed)).files();
        assert!(files.len() < 2 || files.contains(&WAL.to_owned()), "{files:?}");
    }
    file.append(b"x").unwrap();
    file.sync_data().unwrap();
    assert_eq!(storage.crash(Crash::LoseAll).files().len(), 2);
}

#[test]
fn blocks_are_lost_one_by_one() {
    let (storage, mut file) = half_synced();
    let long: Vec<u8> = (0..20_000u32).map(|i| i as u8 | 1).collect();
    file.append(&long).unwrap();
    let whole = storage.read(WAL).unwrap();
    let mut holes = false;
    for seed in 0..200 {
        let found = storage.crash(Crash::LoseSome(seed)).read(WAL).unwrap();
        assert!(found.len() <= whole.len());
        for (index, block) in found.chunks(4096).enumerate().skip(1) {
            let expected = &whole[index * 4096..index * 4096 + block.len()];
            assert!(block == expected || block.iter().all(|&byte| byte == 0), "block {index}");
        }
        holes |= found.len() == whole.len() && found != whole;
    }
    assert!(holes);
}

#[test]
fn after_a_failed_sync_the_bytes_are_gone() {
    let (storage, mut file) = half_synced();
    storage.inject(Fault { kind: FaultKind::Io, skip: 0, forever: false, only: Some(Operation::SyncData) });
    assert!(file.sync_data().is_err());
    assert_eq!(storage.take_fired(), [(Operation::SyncData, WAL.to_owned())]);
    file.append(b"!").unwrap();
    file.sync_data().unwrap();
    assert_eq!(text(&storage).unwrap(), "synced unsynced!");
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), format!("synced{}!", "\0".repeat(9)));
    // A sync of everything that can be read makes up for it.
    storage.sync(WAL).unwrap();
    assert_eq!(text(&storage.crash(Crash::LoseAll)).unwrap(), "synced unsynced!");
}

#[test]
fn faults_hit_the_call_they_are_for() {
    for (kind, lens) in [
        (FaultKind::Io, 0..1),
        (FaultKind::ZeroWrite, 0..1),
        (FaultKind::NoSpace, 0..9),
        (FaultKind::ShortWrite, 0..9),
    ] {
        let storage = FaultStorage::new(7);
        storage.create_dir("wal").unwrap();
        let mut file = storage.create(WAL).unwrap();
        storage.inject(Fault { kind, skip: 1, forever: true, only: Some(Operation::Append) });
        file.append(b"first").unwrap();
        for _ in 0..20 {
            assert!(file.append(b"123456789").is_err());
            assert!(lens.contains(&(file.len() - 5)), "{kind:?} wrote {}", file.len() - 5);
            file.truncate(5).unwrap();
        }
        file.sync_data().unwrap();
        storage.clear_faults();
        file.append(b"!").unwrap();
        assert_eq!(text(&storage).unwrap(), "first!");
    }
}

#[test]
fn rotten_bits_are_read() {
    let (storage, _file) = half_synced();
    storage.rot(WAL, 2, 0);
    let file = storage.open(WAL).unwrap();
    assert_eq!(&file.read_at(1, 3).unwrap()[..], b"yoc");
    assert_eq!(&file.read_at(3, 3).unwrap()[..], b"ced");
    storage.clear_faults();
    assert_eq!(&file.read_at(1, 3).unwrap()[..], b"ync");
}

#[test]
fn mutants_leave_out_one_sync_or_are_late() {
    let work = |mutant| {
        let storage = FaultStorage::new(1);
        storage.set_mutant(Some(mutant));
        storage.create_dir("wal").unwrap();
        storage.sync_dir("").unwrap();
        let mut file = storage.create(WAL).unwrap();
        file.append(b"header").unwrap();
        file.sync_data().unwrap();
        storage.sync_dir("wal").unwrap();
        let before = text(&storage.crash(Crash::LoseAll));
        file.append(b"batch").unwrap();
        storage.set_phase(Phase::Acknowledge);
        file.sync_data().unwrap();
        (before, text(&storage.crash(Crash::LoseAll)))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(work(Mutant::Skip(SyncPoint::WalHeader)), (some(""), some("headerbatch")));
    assert_eq!(work(Mutant::Skip(SyncPoint::WalName)), (None, None));
    assert_eq!(work(Mutant::Skip(SyncPoint::WalCommit)), (some("header"), some("header")));
    assert_eq!(work(Mutant::Skip(SyncPoint::RootDirectories)), (None, None));
    let late = Mutant::Delay(SyncPoint::WalName, Until::Synced(SyncPoint::WalCommit));
    assert_eq!(work(late), (None, some("headerbatch")));
}

#[test]
fn the_same_seed_does_the_same() {
    let work = |seed| {
        let storage = FaultStorage::new(seed);
        storage.create_dir("wal").unwrap();
        let mut file = storage.create(WAL).unwrap();
        storage.inject(Fault { kind: FaultKind::ShortWrite, skip: 0, forever: true, only: None });
        for _ in 0..10 {
            assert!(file.append(&[1; 100]).is_err());
        }
        (storage.fingerprint(), storage.crash(Crash::LoseSome(seed)).fingerprint())
    };
    assert_eq!(work(3), work(3));
    assert_ne!(work(3).0, work(4).0);
}
