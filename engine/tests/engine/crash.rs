//! Goal: after a crash at any storage call, within it or after it, the database
//! opens and shows a prefix of its commits, with all that were acknowledged as
//! durable enough. Method: a workload over a storage that keeps an image of the
//! files after each call, one as a kill leaves them and one as a power loss may;
//! every image is opened, compared, written to and opened again. Opening is
//! itself such a workload.

use std::sync::Arc;

use duramen::api::Database;
use duramen::storage::memory::MemoryStorage;
use duramen::{Db, Durability, WriteBatch};

use crate::random::{Random, for_seeds};
use crate::recorder::{Crash, Image, Recorder};
use crate::support::{Contents, contents, open, small};

/// The commits of the workload, each over both keyspaces: `number` says in each
/// state which commit was the last.
fn commit(db: &dyn Database, n: u64, durability: Durability) -> duramen::Result<()> {
    let [first, second] = ["first", "second"].map(|name| db.create_keyspace(name).unwrap());
    let mut batch = WriteBatch::new();
    batch.put(second, b"number", &n.to_le_bytes());
    if n.is_multiple_of(5) {
        batch.delete(first, &key(n / 2));
    }
    batch.put(first, &key(n), &vec![n as u8; 20 + n as usize % 60]);
    db.write(batch, durability)
}

fn key(n: u64) -> Vec<u8> {
    format!("key{:02}", n * 7 % 16).into_bytes()
}

/// What the database holds after `last` commits.
fn expected(last: u64) -> Contents {
    let mut contents = Contents::new();
    for n in 1..=last {
        contents.insert(("second".into(), b"number".to_vec()), n.to_le_bytes().to_vec());
        if n.is_multiple_of(5) {
            contents.remove(&("first".into(), key(n / 2)));
        }
        contents.insert(("first".into(), key(n)), vec![n as u8; 20 + n as usize % 60]);
    }
    contents
}

/// Number of the last commit that `db` shows, if it shows exactly the commits up
/// to there.
fn last_commit(db: &dyn Database) -> Result<u64, String> {
    let found = contents(db).map_err(|error| error.to_string())?;
    let number = found.get(&("second".into(), b"number".to_vec()));
    let last = number.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
    match found == expected(last) {
        true => Ok(last),
        false => Err(format!("not a prefix, though commit {last} is there")),
    }
}

fn run(recorder: &Recorder) {
    let open = || Db::open_with(Arc::new(recorder.clone()), small()).unwrap();
    let mut db = open();
    for n in 1..=60 {
        let durability = match n % 6 {
            0 => Durability::Sync,
            1 => Durability::None,
            _ => Durability::Buffered,
        };
        recorder.progress(|progress| progress.begun = n);
        commit(&db, n, durability).unwrap();
        recorder.progress(|progress| match durability {
            Durability::None => {}
            Durability::Buffered => progress.buffered = n,
            Durability::Sync => (progress.buffered, progress.synced) = (n, n),
        });
        match n {
            13 | 44 => db.flush().unwrap(),
            20 => db.sync().unwrap(),
            27 | 55 => db.compact().unwrap(),
            33 => {
                db.close().unwrap();
                drop(db);
                db = open();
            }
            17 | 40 | 50 => {
                drop(db);
                db = open();
            }
            _ => {}
        }
        if n == 20 || n == 33 {
            recorder.progress(|progress| (progress.buffered, progress.synced) = (n, n));
        }
    }
    let snapshot = db.snapshot();
    db.compact().unwrap();
    drop(snapshot);
    db.compact().unwrap();
    db.close().unwrap();
}

/// Opens files and looks.
fn look(files: &MemoryStorage) -> Result<u64, String> {
    let db = open(files, small()).map_err(|error| error.to_string())?;
    last_commit(&db)
}

/// Opens the image and checks it; answers the last commit found.
fn check(image: &Image) -> Result<u64, String> {
    let files = image.files.deep_clone();
    let last = look(&files)?;
    let promised = match image.crash {
        Crash::Kill => image.progress.buffered,
        Crash::PowerLoss => image.progress.synced,
    };
    if !(promised..=image.progress.begun).contains(&last) {
        return Err(format!("{last} is the last commit, {:?}", image.progress));
    }
    // What is recovered takes writes, and is recovered again with them.
    let db = open(&files, small()).map_err(|error| format!("the second time: {error}"))?;
    let problems = db.verify().map_err(|error| error.to_string())?.problems;
    if !problems.is_empty() {
        return Err(format!("{problems:?}"));
    }
    // Not where the directory of its tables is lost, and there is no room.
    commit(&db, last + 1, Durability::Buffered).map_err(|error| error.to_string())?;
    drop(db);
    match look(&files).map_err(|error| format!("the third time: {error}"))? {
        again if again == last + 1 => Ok(last),
        again => Err(format!("{again} is the last commit after {} was written", last + 1)),
    }
}

fn whence(image: &Image) -> String {
    format!("{:?} at: {}", image.crash, image.call)
}

fn checked(image: &Image) -> u64 {
    check(image).unwrap_or_else(|what| panic!("{}: {what}", whence(image)))
}

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_promised() {
    for names_durable in [true, false] {
        let recorder = Recorder::new(names_durable);
        run(&recorder);
        let images = recorder.take();
        let count = |crash| images.iter().filter(|image| image.crash == crash).count();
        assert!(count(Crash::Kill) > 300, "{}", count(Crash::Kill));
        assert!(count(Crash::PowerLoss) > 100 || !names_durable, "{}", count(Crash::PowerLoss));
        let calls = ["sst/1", "sst/2", "wal/", "manifest/"].map(|dir| format!("half of append {dir}"));
        for call in
            calls.into_iter().chain(["overwrite CURRENT", "remove wal", "remove sst"].map(String::from))
        {
            // Without durable names files go only when a database is opened.
            assert!(images.iter().any(|image| image.call.starts_with(&call)), "{call}: not in the workload");
        }
        for image in &images {
            checked(image);
        }
        let last = images.iter().rfind(|image| image.crash == Crash::Kill).unwrap();
        assert_eq!(checked(last), 60, "nothing is lost in the end");
    }
}

#[test]
fn every_power_loss_leaves_a_prefix_with_all_that_was_synced() {
    let recorder = Recorder::new(true);
    run(&recorder);
    let images = recorder.take();
    let images: Vec<_> = images.iter().filter(|image| image.crash == Crash::Kill).collect();
    for_seeds(0..3, |seed| {
        let mut random = Random::new(seed);
        for image in &images {
            checked(&image.mixed(&mut random));
        }
    });
}

#[test]
fn every_crash_of_a_recovery_leaves_what_it_began_with() {
    for names_durable in [true, false] {
        let recorder = Recorder::new(names_durable);
        run(&recorder);
        for image in recorder.take().iter().step_by(9) {
            let recorder = image.recorder(names_durable);
            let db = Db::open_with(Arc::new(recorder.clone()), small()).unwrap();
            let last = last_commit(&db).unwrap();
            drop(db);
            let crashes = recorder.take();
            for again in &crashes {
                let whence = format!("{}; then {}", whence(image), whence(again));
                let found = look(&again.files).unwrap_or_else(|what| panic!("{whence}: {what}"));
                match again.crash {
                    Crash::Kill => assert_eq!(found, last, "{whence}"),
                    Crash::PowerLoss => assert!((image.progress.synced..=last).contains(&found), "{whence}"),
                }
            }
            // What a recovery has shown is durable, though nobody synced it.
            if let Some(end) = crashes.iter().rfind(|again| again.crash == Crash::PowerLoss) {
                assert_eq!(look(&end.files), Ok(last), "{}", whence(image));
            }
        }
    }
}

#[test]
fn no_kind_of_sync_could_be_left_out() {
    for sync in [
        "sync wal/",
        "sync sst/",
        "sync manifest/",
        "sync CURRENT",
        "sync_dir ",
        "sync_dir wal",
        "sync_dir manifest",
        "sync_dir sst",
        "sync_dir sst/1",
        "sync_dir sst/2",
    ] {
        let recorder = Recorder::that_ignores(sync);
        run(&recorder);
        let images = recorder.take();
        let noticed = images.iter().any(|image| image.crash == Crash::PowerLoss && check(image).is_err());
        assert!(noticed, "without `{sync}` nothing is lost");
    }
}
