//! Goal: one opener per directory, and no harm to directories that are not
//! databases. Method: openers of every kind beside each other; listings before
//! and after.

use std::fs::{self, File};
use std::path::Path;

use duramen::{Database, Durability, Error, Options, ScanRange};
use duramen_host::Sandbox;

use crate::{open, options};

fn is_locked<T>(result: duramen::Result<T>) -> bool {
    matches!(result, Err(Error::Locked(_)))
}

#[test]
fn a_second_open_is_refused_until_the_first_ends() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    assert!(is_locked(Sandbox::open(directory.path(), options())));
    // Under another name too.
    assert!(is_locked(Sandbox::open(directory.path().join("."), options())));
    drop(first);
    open(directory.path());
}

#[test]
fn the_lock_file_of_another_opener_is_respected() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("LOCK")).unwrap();
    file.lock().unwrap();
    assert!(is_locked(Sandbox::open(directory.path(), options())));
    drop(file);
    let sandbox = open(directory.path());
    let file = File::open(directory.path().join("LOCK")).unwrap();
    assert!(file.try_lock().is_err());
    sandbox.close().unwrap();
    file.try_lock().unwrap();
}

#[test]
fn native_and_sandbox_exclude_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let native = duramen::Db::open(directory.path(), Options::default()).unwrap();
    assert!(is_locked(Sandbox::open(directory.path(), options())));
    drop(native);
    let sandbox = open(directory.path());
    assert!(is_locked(duramen::Db::open(directory.path(), Options::default())));
    drop(sandbox);
    duramen::Db::open(directory.path(), Options::default()).unwrap();
}

fn listing(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_foreign_directory_is_left_untouched() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.tex"), "precious").unwrap();
    let before = listing(directory.path());
    let error = Sandbox::open(directory.path(), options()).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(listing(directory.path()), before);
}

#[test]
fn nothing_is_created_where_nothing_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let mut existing = options();
    existing.engine.create_if_missing = false;
    let absent = directory.path().join("absent");
    for path in [directory.path(), &absent] {
        let error = Sandbox::open(path, existing.clone()).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    assert_eq!(listing(directory.path()), []);
}

#[test]
fn absent_directories_are_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    open(&path).create_keyspace("k").unwrap();
    assert!(path.join("LOCK").is_file());
}

#[cfg(unix)]
#[test]
fn a_lock_that_leads_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let target = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(target.path(), directory.path().join("LOCK")).unwrap();
    assert!(matches!(Sandbox::open(directory.path(), options()), Err(Error::InvalidArgument(_))));
}

#[test]
fn dropping_the_sandbox_ends_its_scans_and_frees_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path());
    let keyspace = db.create_keyspace("k").unwrap();
    db.put(keyspace, b"a", b"1", Durability::Buffered).unwrap();
    let mut scan = db.scan(keyspace, &ScanRange::all(), None).unwrap();
    let unread = db.scan(keyspace, &ScanRange::all(), None).unwrap();
    drop(db);

    let again = open(directory.path());
    assert!(matches!(scan.next_page(1024, usize::MAX), Err(Error::InvalidArgument(_))));
    drop((scan, unread));
    again.create_keyspace("still works").unwrap();
}

#[test]
fn the_component_imports_no_network() {
    let component = duramen_host::component_bytes();
    let imports = |name: &[u8]| component.windows(name.len()).any(|window| window == name);
    assert!(imports(b"wasi:filesystem/types"));
    assert!(!imports(b"wasi:sockets"));
    assert!(!imports(b"wasi:http"));
}
