//! What the machine can do: the limits that an engine's figures are judged by.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write};

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, nanos_each};
use crate::data::{KEY_BYTES, Random, Values, random_key};

/// Bytes of a copy in memory, beyond any cache of a processor.
const COPY_BYTES: usize = 256 << 20;

/// Bytes of a read, and of the file that is read from.
const PAGE_BYTES: usize = 4096;
const FILE_BYTES: usize = 256 << 20;

/// Memory, files and syncs without any engine
///
/// memcpy: 256 MiB, per KiB. pread: 4 KiB at random places of a file of 256 MiB that the
/// system has in memory. append: as many bytes as a key and a value, one call each. append
/// and fdatasync: the same to a file preallocated with zeros. BTreeMap: the standard
/// library's map with copies of keys and values.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries of the map, appends, and reads
    #[arg(long, default_value = "1M", value_parser = count)]
    pub entries: u64,
    /// Appends that are synced
    #[arg(long, default_value = "4k", value_parser = count)]
    pub syncs: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
}

/// Measures the machine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    copies(bench)?;
    reads(bench, arguments.entries)?;
    appends(bench, arguments)?;
    synced_appends(bench, "append and fdatasync", arguments.syncs, arguments.value_bytes)?;
    map(bench, arguments)
}

fn copies(bench: &mut Bench) -> Result<()> {
    let (from, mut to) = (vec![1_u8; COPY_BYTES], vec![2_u8; COPY_BYTES]);
    let spent = bench.step("memcpy", || {
        black_box(&mut to).copy_from_slice(black_box(&from));
        Ok(())
    })?;
    bench.note("memcpy, per KiB", "ns", nanos_each(spent, COPY_BYTES as u64 >> 10));
    Ok(())
}

#[cfg(unix)]
fn reads(bench: &mut Bench, entries: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let path = bench.directory().join("read");
    std::fs::write(&path, vec![1_u8; FILE_BYTES])?;
    let (file, mut page, mut random) = (File::open(&path)?, [0; PAGE_BYTES], Random::new(1));
    bench.timed("pread of 4 KiB", entries, |_| {
        let at = random.below((FILE_BYTES / PAGE_BYTES) as u64) * PAGE_BYTES as u64;
        Ok(file.read_exact_at(&mut page, at)?)
    })?;
    check(page[0] == 1, || "a file has not what was written to it".to_owned())?;
    Ok(std::fs::remove_file(path)?)
}

/// Not measured here.
#[cfg(not(unix))]
fn reads(_: &mut Bench, _: u64) -> Result<()> {
    Ok(())
}

fn appends(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let path = bench.directory().join("append");
    let mut file = File::create(&path)?;
    let record = vec![1; KEY_BYTES + arguments.value_bytes];
    bench.timed("append", arguments.entries, |_| Ok(file.write_all(&record)?))?;
    Ok(std::fs::remove_file(path)?)
}

/// Appends a key and a value's bytes so many times to a preallocated file, and syncs
/// its data each time.
pub fn synced_appends(bench: &mut Bench, name: &str, count: u64, value_bytes: usize) -> Result<()> {
    let path = bench.directory().join("synced");
    let mut file = File::create(&path)?;
    let record = vec![1; KEY_BYTES + value_bytes];
    file.write_all(&vec![0; record.len() * usize::try_from(count)?])?;
    file.sync_all()?;
    file.rewind()?;
    bench.timed(name, count, |_| {
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    })?;
    Ok(std::fs::remove_file(path)?)
}

fn map(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let (mut map, mut values) = (BTreeMap::new(), Values::new(arguments.value_bytes));
    bench.timed("BTreeMap insert", arguments.entries, |number| {
        let key = random_key(number);
        map.insert(key.to_vec(), values.of(&key, 0).to_vec());
        Ok(())
    })?;
    let mut random = Random::new(1);
    bench.timed("BTreeMap get", arguments.entries, |_| {
        let key = random_key(random.below(arguments.entries));
        let found = map.get(key.as_slice()).is_some_and(|value| value == values.of(&key, 0));
        check(found, || "an entry has not its value".to_owned())
    })
}
