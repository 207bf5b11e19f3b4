//! What a guest may use: linear memory, time by epochs, instructions by fuel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use wasmtime::{Engine, ResourceLimiter};

/// Length of an epoch. Deadlines are kept to this precision; each epoch wakes
/// the process once while a sandbox is open.
pub const EPOCH: Duration = Duration::from_millis(50);

/// Elements of one table of the guest: function pointers and handles. The
/// engine's code has some thousands.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// Bytes of linear memory of one sandbox, now and at most; shared by the
/// instances that follow each other in it.
#[derive(Debug, Default)]
pub struct MemoryMeter {
    now: AtomicU64,
    peak: AtomicU64,
}

impl MemoryMeter {
    /// Bytes that the live instance has; 0 without one.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Most bytes that any instance has had.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn set(&self, bytes: u64) {
        self.now.store(bytes, Ordering::Relaxed);
        self.peak.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// The memory cap of one instance.
#[derive(Debug)]
pub struct MemoryLimit {
    bytes: u64,
    bytes_max: u64,
    refused: bool,
    meter: Arc<MemoryMeter>,
}

impl MemoryLimit {
    /// A cap of `bytes_max` over all linear memories of an instance.
    pub fn new(bytes_max: u64, meter: Arc<MemoryMeter>) -> Self {
        MemoryLimit { bytes: 0, bytes_max, refused: false, meter }
    }

    /// Forgets earlier refusals, which the guest survived.
    pub fn begin_call(&mut self) {
        self.refused = false;
    }

    /// The cap, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// True if the guest asked for more than the cap since the call began.
    pub fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.bytes + desired.saturating_sub(current) as u64;
        if bytes > self.bytes_max || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            // The guest's allocator sees a clean failure and may recover.
            return Ok(false);
        }
        self.bytes = bytes;
        self.meter.set(bytes);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.meter.set(0);
    }
}

/// What a call may use beside memory.
#[derive(Clone, Copy, Debug)]
pub struct CallLimit {
    /// How long it may take, as the caller of the sandbox put it.
    pub duration: Duration,
    /// As wasmtime counts: epochs that may begin before the call is ended.
    pub epochs: u64,
    /// Instructions that it may run, roughly; `None` for any number.
    pub fuel: Option<u64>,
}

impl CallLimit {
    /// `duration`, rounded up to whole epochs, and `fuel`.
    pub fn new(duration: Duration, fuel: Option<u64>) -> Self {
        let epochs = duration.as_nanos().div_ceil(EPOCH.as_nanos());
        // One more, because the current epoch is partly over. Half the largest
        // number at most, because wasmtime adds the current epoch to it.
        let epochs = u64::try_from(epochs).unwrap_or(u64::MAX).min(u64::MAX / 2) + 1;
        CallLimit { duration, epochs, fuel }
    }
}

/// Which limit a call is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallLength {
    /// Work as the caller asks for it.
    Usual,
    /// Work of the size of the database: open, flush, compact, verify,
    /// checkpoint, close.
    Long,
}

/// The limits of one sandbox.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    pub usual: CallLimit,
    pub long: CallLimit,
}

impl CallLimits {
    /// The one for calls of this length.
    pub fn of(&self, length: CallLength) -> CallLimit {
        match length {
            CallLength::Usual => self.usual,
            CallLength::Long => self.long,
        }
    }
}

/// Keeps an engine's epochs running; they stop once every clone is gone.
#[derive(Debug)]
pub struct Ticker(());

impl Ticker {
    /// The ticker of `engine`, remembered in `slot` while anyone holds it.
    ///
    /// # Errors
    /// That of the system, where it has no thread left.
    pub fn start(slot: &Mutex<Weak<Ticker>>, engine: &Engine) -> std::io::Result<Arc<Ticker>> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticker) = slot.upgrade() {
            return Ok(ticker);
        }
        let ticker = Arc::new(Ticker(()));
        let (alive, engine) = (Arc::downgrade(&ticker), engine.weak());
        thread::Builder::new().name("duramen-epochs".to_owned()).spawn(move || {
            while alive.strong_count() > 0 {
                thread::sleep(EPOCH);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => break,
                }
            }
        })?;
        *slot = Arc::downgrade(&ticker);
        Ok(ticker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_round_up() {
        let epochs = |duration| CallLimit::new(duration, None).epochs;
        assert_eq!(epochs(Duration::ZERO), 1);
        assert_eq!(epochs(Duration::from_millis(1)), 2);
        assert_eq!(epochs(Duration::from_millis(50)), 2);
        assert_eq!(epochs(Duration::from_millis(51)), 3);
        assert!(epochs(Duration::MAX) > 1 << 62);
    }

    #[test]
    fn growth_past_the_cap_is_refused_and_remembered() {
        let meter = Arc::new(MemoryMeter::default());
        let mut limit = MemoryLimit::new(100, Arc::clone(&meter));
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.memory_growing(0, 40, None).unwrap(), "a second memory");
        assert!(!limit.refused());
        assert!(!limit.memory_growing(60, 61, None).unwrap());
        assert!(limit.refused());
        limit.begin_call();
        assert!(!limit.refused());
        assert_eq!((meter.now(), meter.peak()), (100, 100));
        drop(limit);
        assert_eq!((meter.now(), meter.peak()), (0, 100));
    }
}
