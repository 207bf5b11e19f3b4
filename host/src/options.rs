//! How a sandbox is opened.

use std::path::PathBuf;
use std::time::Duration;

use duramen::{Error, Options, Result};

use crate::limits::{CallLimit, CallLimits};

/// Memory of the guest where the caller has no reason to choose, in bytes: room
/// for the default cache (64 MiB), two memtables (16 MiB each) and the largest
/// batch (64 MiB) with one copy.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Least memory of a guest, in bytes: below it the limits derived from it are
/// too small to be useful.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Most memory that a 32-bit guest can address, in bytes.
const MEMORY_BYTES_END: u64 = 4 << 30;

/// SSTables are not made smaller than this for want of memory, in bytes.
const FILE_BYTES_MIN: u64 = 4 << 20;

/// Longest value in a sandbox whatever its memory, in bytes.
const VALUE_BYTES_MAX: u64 = 64 << 20;

/// Longest batch in a sandbox whatever its memory, in bytes.
const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Where compiled code is kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompileCache {
    /// The user's cache directory; no cache where it cannot be created.
    #[default]
    User,
    /// This directory; no cache where it cannot be created.
    Directory(PathBuf),
    /// Nowhere: compile at the first open of each process.
    Off,
}

/// How a [`crate::Sandbox`] is opened.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// How the engine inside opens the database. Sizes are cut down to what
    /// fits in the guest: a memtable to a sixteenth of `memory_bytes_max`, and so an
    /// SSTable, for whose removal a writer waits, but not below 4 MiB; all memtables to an
    /// eighth, cache to a quarter, a value to min(64 MiB, an eighth), a batch to
    /// min(256 MiB, a quarter); `stall_ms_max` to a half of `call_deadline`. `background` and `environment` do not cross into the
    /// sandbox: it has no threads, and a clock of its own.
    pub engine: Options,
    /// Most memory of the guest, in bytes: 16 MiB to 4 GiB. The guest's memory
    /// grows on demand and never shrinks while the database is open.
    /// Default: 256 MiB.
    pub memory_bytes_max: u64,
    /// Longest one call may run before the instance is ended, to the next
    /// 50 ms. Time in system calls counts but is noticed only on return.
    /// Default: 60 s, far above any healthy call.
    pub call_deadline: Duration,
    /// The same for the calls that read or write much by their nature: open
    /// (recovery), flush, compact, verify, checkpoint, close. Default: 1 hour.
    pub long_call_deadline: Duration,
    /// Most units of wasmtime's fuel that one call may use, about one per
    /// instruction, before the instance is ended. Unlike a deadline it depends on
    /// the work alone, and not on the machine or what else runs there. A put takes
    /// some ten thousand, and more where it pays for background work. Counting
    /// makes calls slower, and such sandboxes have compiled code of their own in
    /// the cache. Default: no limit.
    pub call_fuel: Option<u64>,
    /// The same for the calls of `long_call_deadline`. One that recovery does not
    /// get by with makes the database unusable until it is raised. Default: no
    /// limit, also where `call_fuel` is one.
    pub long_call_fuel: Option<u64>,
    /// Where compiled code is kept. Default: the user's cache directory.
    pub cache: CompileCache,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        SandboxOptions {
            engine: Options::default(),
            memory_bytes_max: MEMORY_BYTES_MAX,
            call_deadline: Duration::from_secs(60),
            long_call_deadline: Duration::from_secs(3600),
            call_fuel: None,
            long_call_fuel: None,
            cache: CompileCache::default(),
        }
    }
}

impl SandboxOptions {
    /// The options with the engine's sizes cut down to what fits.
    ///
    /// # Errors
    /// `InvalidArgument` if `memory_bytes_max` is out of its range.
    pub(crate) fn fitted(mut self) -> Result<Self> {
        let memory = self.memory_bytes_max;
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_END).contains(&memory) {
            return Err(Error::invalid(format!(
                "a sandbox has {MEMORY_BYTES_MIN} to {MEMORY_BYTES_END} bytes of memory, not {memory}"
            )));
        }
        // Each quotient of a number up to 4 GiB fits in 32 bits.
        let fit = |bytes: &mut usize, most: u64| *bytes = (*bytes).min(most as usize);
        fit(&mut self.engine.memtable_bytes, memory / 16);
        self.engine.target_file_bytes = self.engine.target_file_bytes.min((memory / 16).max(FILE_BYTES_MIN));
        if let Some(bytes) = &mut self.engine.write_buffer_bytes {
            fit(bytes, memory / 8);
        }
        fit(&mut self.engine.cache_bytes, memory / 4);
        fit(&mut self.engine.value_bytes_max, VALUE_BYTES_MAX.min(memory / 8));
        fit(&mut self.engine.batch_bytes_max, BATCH_BYTES_MAX.min(memory / 4));
        // A commit that cannot go on says so before its instance is ended.
        let half = u64::try_from(self.call_deadline.as_millis() / 2).unwrap_or(u64::MAX);
        self.engine.stall_ms_max = self.engine.stall_ms_max.min(half);
        Ok(self)
    }

    /// True if either kind of call has a limit of fuel.
    pub(crate) fn counts_fuel(&self) -> bool {
        self.call_fuel.is_some() || self.long_call_fuel.is_some()
    }

    /// Limits of calls.
    pub(crate) fn call_limits(&self) -> CallLimits {
        CallLimits {
            usual: CallLimit::new(self.call_deadline, self.call_fuel),
            long: CallLimit::new(self.long_call_deadline, self.long_call_fuel),
        }
    }

    /// Most bytes of a scan's page beyond its first pair.
    pub(crate) fn page_bytes_max(&self) -> u32 {
        u32::try_from(self.memory_bytes_max / 8).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cut_to_the_memory_cap() {
        let fitted = SandboxOptions::default().fitted().unwrap().engine;
        assert_eq!(fitted.memtable_bytes, 16 << 20);
        assert_eq!(fitted.target_file_bytes, 16 << 20);
        assert_eq!(fitted.write_buffer_bytes, None, "two memtables, in the guest");
        assert_eq!(fitted.stall_ms_max, 30_000);
        assert_eq!(fitted.cache_bytes, 64 << 20);
        assert_eq!(fitted.value_bytes_max, 32 << 20);
        assert_eq!(fitted.batch_bytes_max, 64 << 20);

        let small = SandboxOptions { memory_bytes_max: 16 << 20, ..SandboxOptions::default() };
        assert_eq!(small.fitted().unwrap().engine.value_bytes_max, 2 << 20);

        let mut frugal = SandboxOptions::default();
        frugal.engine.cache_bytes = 1 << 20;
        frugal.engine.stall_ms_max = 5;
        frugal.engine.write_buffer_bytes = Some(1 << 30);
        let fitted = frugal.fitted().unwrap().engine;
        assert_eq!((fitted.cache_bytes, fitted.stall_ms_max), (1 << 20, 5));
        assert_eq!(fitted.write_buffer_bytes, Some(32 << 20));
    }

    #[test]
    fn memory_caps_out_of_range_are_refused() {
        for memory_bytes_max in [0, (16 << 20) - 1, (4 << 30) + 1] {
            let options = SandboxOptions { memory_bytes_max, ..SandboxOptions::default() };
            assert!(matches!(options.fitted(), Err(Error::InvalidArgument(_))));
        }
    }
}
