//! The sandbox from the outside: one binary, a module per behaviour.

/// Every operation, sandboxed and native alike.
mod calls;
/// Checkpoints of a database that is open in a sandbox.
mod checkpoint;
/// The command.
mod cli;
/// Who may open a directory, and which directories.
mod directory;
/// Limits of instructions, and traps at chosen ones.
mod fuel;
/// Limits that are checked before the guest could suffer from them.
mod limits;
/// What every build of the engine must do, in the sandbox.
mod scenarios;
/// The guest ends in a trap; the database goes on.
mod traps;

use std::path::{Path, PathBuf};

use duramen_host::{CompileCache, Sandbox, SandboxOptions};

/// The least memory of a sandbox, in bytes.
const SMALL: u64 = 16 << 20;

/// Default options, with compiled code kept beside the tests.
fn options() -> SandboxOptions {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache");
    SandboxOptions { cache: CompileCache::Directory(cache), ..SandboxOptions::default() }
}

/// The same for a database that is there.
fn existing() -> SandboxOptions {
    let mut options = options();
    options.engine.create_if_missing = false;
    options
}

fn small() -> SandboxOptions {
    SandboxOptions { memory_bytes_max: SMALL, ..options() }
}

fn open(directory: &Path) -> Sandbox {
    Sandbox::open(directory, options()).unwrap()
}
