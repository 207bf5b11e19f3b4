//! Goal: the engine in the sandbox does what every build of it must. Method: the
//! scenarios that also run over memory, over files, under WASI and in browsers.

use std::fs;

use bytes::Bytes;
use duramen::{Database, Options, Result};
use duramen_host::{Sandbox, SandboxOptions};
use tempfile::TempDir;
use wasm_tests::scenarios::{self, Place};

/// A directory that sandboxes are opened in.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Directory(tempfile::tempdir().unwrap())
    }
}

impl Place for Directory {
    fn open(&self, engine: Options) -> Result<Box<dyn Database>> {
        let options = SandboxOptions { engine, ..crate::options() };
        Ok(Box::new(Sandbox::open(self.0.path(), options)?))
    }

    fn tables(&self) -> Vec<(String, Bytes)> {
        let mut tables = Vec::new();
        for keyspace in fs::read_dir(self.0.path().join("sst")).unwrap() {
            for file in fs::read_dir(keyspace.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                tables.push((name, fs::read(&path).unwrap().into()));
            }
        }
        tables.sort();
        tables
    }
}

#[test]
fn reads_and_writes() {
    scenarios::reads_and_writes(&Directory::new());
}

#[test]
fn sstables_are_parquet() {
    scenarios::sstables_are_parquet(&Directory::new());
}

#[test]
fn scans() {
    scenarios::scans(&Directory::new());
}

#[test]
fn snapshots() {
    scenarios::snapshots(&Directory::new());
}

#[test]
fn reopens() {
    scenarios::reopens(&Directory::new());
}

#[test]
fn ranges_merges_and_expiry() {
    scenarios::ranges_merges_and_expiry(&Directory::new());
}

#[test]
fn keyspaces_come_and_go() {
    scenarios::keyspaces_come_and_go(&Directory::new());
}

#[test]
fn transactions() {
    scenarios::transactions(&Directory::new());
}

#[test]
fn maintains() {
    scenarios::maintains(&Directory::new());
}

#[test]
fn follows_the_model() {
    for seed in 11..14 {
        scenarios::follows_the_model(&Directory::new(), seed);
    }
}
