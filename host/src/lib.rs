//! Duramen in a sandbox: the engine runs as a WebAssembly component inside
//! wasmtime and reaches one directory, clocks and randomness, and nothing else.
//!
//! [`Sandbox`] implements the same [`duramen::Database`] as the native
//! [`duramen::Db`]. [`open`] chooses between the two.
//!
//! ```
//! use duramen::{Database, Durability};
//! use duramen_host::{Sandbox, SandboxOptions};
//!
//! let directory = tempfile::tempdir()?;
//! let db = Sandbox::open(directory.path(), SandboxOptions::default())?;
//! let users = db.create_keyspace("users")?;
//! db.put(users, b"user:42", b"ada", Durability::Buffered)?;
//! assert_eq!(db.get(users, b"user:42", None)?.as_deref(), Some(&b"ada"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compile;
mod convert;
mod instance;
mod limits;
mod lock;
mod options;
mod sandbox;

use std::path::Path;

use duramen::{Database, Db, Result};

pub use compile::{Compiled, component_bytes};
pub use options::{CompileCache, SandboxOptions};
pub use sandbox::Sandbox;

/// Opens the database in `directory`: in a sandbox, or with `native` by the
/// engine linked into this program, which takes `options.engine` as it is.
///
/// # Errors
/// `Locked` if anyone, this process included, has it open; otherwise what
/// [`Sandbox::open`] and [`Db::open`] answer.
pub fn open(directory: impl AsRef<Path>, native: bool, options: SandboxOptions) -> Result<Box<dyn Database>> {
    if native {
        Ok(Box::new(Db::open(directory, options.engine)?))
    } else {
        Ok(Box::new(Sandbox::open(directory, options)?))
    }
}
