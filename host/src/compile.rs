//! From the embedded component to code that can be instantiated: compiled once
//! per process, and kept between processes in wasmtime's cache.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use duramen::{Error, Result};
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2;
use wasmtime_wasi::p2::bindings::{cli, filesystem, sync};

use crate::instance::Guest;
use crate::instance::bindings::DuramenPre;
use crate::limits::Ticker;
use crate::options::{CompileCache, SandboxOptions};

static COMPONENT: &[u8] = include_bytes!(env!("DURAMEN_COMPONENT"));

/// The component as embedded in this program.
pub fn component_bytes() -> &'static [u8] {
    COMPONENT
}

/// The compiled component with its imports resolved.
pub struct Compiled {
    engine: Engine,
    instance: DuramenPre<Guest>,
    ticker: Mutex<Weak<Ticker>>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

impl Compiled {
    /// Compiles the component as `options` need it, or loads it from their cache.
    /// [`crate::Sandbox`] does this once per process, cache, and choice of whether
    /// fuel is counted; a program calls it to pay beforehand.
    ///
    /// # Errors
    /// `Unsupported` where this machine cannot run compiled code.
    pub fn new(options: &SandboxOptions) -> Result<Self> {
        Self::compile(&options.cache, options.counts_fuel())
            .map_err(|error| Error::Unsupported(format!("the sandbox cannot run on this machine: {error:#}")))
    }

    fn compile(cache: &CompileCache, fuel: bool) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.consume_fuel(fuel);
        config.cache(open_cache(cache));
        let engine = Engine::new(&config)?;
        let component = Component::from_binary(&engine, COMPONENT)?;
        let mut linker = Linker::new(&engine);
        add_wasi(&mut linker)?;
        let instance = DuramenPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Compiled { engine, instance, ticker: Mutex::default() })
    }

    /// The one of this process for `options`.
    pub(crate) fn shared(options: &SandboxOptions) -> Result<Arc<Self>> {
        type ByOptions = HashMap<(CompileCache, bool), Arc<Compiled>>;
        static SHARED: OnceLock<Mutex<ByOptions>> = OnceLock::new();
        // Compiling under the lock: whoever comes second waits for the result.
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let key = (options.cache.clone(), options.counts_fuel());
        if let Some(compiled) = shared.get(&key) {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(Self::new(options)?);
        shared.insert(key, Arc::clone(&compiled));
        Ok(compiled)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn instance(&self) -> &DuramenPre<Guest> {
        &self.instance
    }

    /// Keeps epochs running while the result lives.
    pub(crate) fn ticker(&self) -> io::Result<Arc<Ticker>> {
        Ticker::start(&self.ticker, &self.engine)
    }
}

fn open_cache(cache: &CompileCache) -> Option<Cache> {
    let mut config = CacheConfig::new();
    match cache {
        CompileCache::Off => return None,
        CompileCache::User => {}
        CompileCache::Directory(directory) => {
            // A relative directory would follow the process around.
            config.with_directory(std::path::absolute(directory).ok()?);
        }
    }
    // A cache saves time and nothing else: without one, compile.
    Cache::new(config).ok()
}

/// What the guest may import: clocks, randomness, standard streams (which lead
/// to buffers), an empty environment, and the preopened directory. There are no
/// sockets to be had, whatever the store is configured with.
fn add_wasi(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p2::add_to_linker_proxy_interfaces_sync(linker)?;
    cli::environment::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    // The adapter asks whether a stream is a terminal before it reads a file.
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(linker, Guest::cli)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)?;
    sync::filesystem::types::add_to_linker::<Guest, WasiFilesystem>(linker, Guest::filesystem)
}
