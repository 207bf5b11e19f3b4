//! An application that embeds the sandboxed engine: a memory cap and deadlines,
//! a value that does not fit, a second opener, a guest that runs out of memory
//! and is replaced, and the same directory opened natively.
//!
//! ```sh
//! cargo run -p duramen-examples --bin 03_embedding_the_sandbox
//! ```

use std::error::Error;
use std::io::ErrorKind;
use std::ops::Bound;
use std::time::Duration;

use duramen::{Database, Durability, Options, ScanRange};
use duramen_host::{Sandbox, SandboxOptions};

const MEMORY: u64 = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let options = SandboxOptions {
        memory_bytes_max: MEMORY,
        call_deadline: Duration::from_secs(5),
        long_call_deadline: Duration::from_secs(60),
        ..SandboxOptions::default()
    };
    // The engine inside reaches this directory, a clock and random numbers.
    let db = Sandbox::open(directory.path(), options.clone())?;
    let users = db.create_keyspace("users")?;
    db.put(users, b"user:42", b"ada", Durability::Sync)?;
    println!("user:42 is {:?}", db.get(users, b"user:42", None)?);
    println!("the guest has {} KiB of memory", db.guest_memory_bytes() >> 10);

    // A value may have an eighth of the memory. A longer one is refused.
    let large = vec![0; MEMORY as usize / 8 + 1];
    let too_large = db.put(users, b"portrait", &large, Durability::Buffered);
    println!("a large value: {}", shown(&too_large));

    // The directory is locked, for other sandboxes and native openers alike.
    let second = Sandbox::open(directory.path(), options);
    println!("a second opener: {}", shown(&second));

    // An application that keeps every scan it begins, each with long bounds, uses
    // up the guest. The call that meets the cap fails; the application does not.
    let bound = Bound::Included(vec![b'u'; 60_000]);
    let range = ScanRange { start: bound.clone(), end: bound, reverse: false };
    let mut scans = Vec::new();
    let exhausted = loop {
        match db.scan(users, &range, None) {
            Ok(scan) => scans.push(scan),
            Err(error) => break error,
        }
    };
    println!("after {} scans: {exhausted}", scans.len());
    drop(scans);

    // The next call finds a new instance, recovered from the log.
    let survivor = db.get(users, b"user:42", None)?;
    println!("user:42 is still {survivor:?}; {} restart", db.restarts());
    println!(
        "{} KiB of memory now, {} KiB at most",
        db.guest_memory_bytes() >> 10,
        db.guest_memory_bytes_peak() >> 10
    );
    let (restarts, peak) = (db.restarts(), db.guest_memory_bytes_peak());
    db.close()?;

    // The files do not tell who wrote them.
    let native = duramen::Db::open(directory.path(), Options::default())?;
    let users = native.keyspace("users")?;
    println!("natively, user:42 is {:?}", users.get(b"user:42")?);

    assert!(matches!(too_large, Err(duramen::Error::InvalidArgument(_))));
    assert!(matches!(second, Err(duramen::Error::Locked(_))));
    let duramen::Error::Io { source, .. } = exhausted else { return Err(exhausted.into()) };
    assert_eq!(source.kind(), ErrorKind::OutOfMemory);
    assert!(restarts == 1 && peak <= MEMORY);
    assert_eq!(survivor.as_deref(), Some(&b"ada"[..]));
    assert_eq!(users.get(b"user:42")?, survivor);
    assert_eq!(users.get(b"portrait")?, None);
    Ok(())
}

/// What was answered, in words.
fn shown<T>(result: &duramen::Result<T>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "accepted".to_owned())
}
