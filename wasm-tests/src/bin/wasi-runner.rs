//! What cargo starts WASI programs with: runs one in wasmtime, with a fresh
//! temporary directory preopened as `/` and nothing else of the machine.
//!
//! ```text
//! CARGO_TARGET_WASM32_WASIP1_RUNNER=target/debug/wasi-runner \
//!     cargo test --package wasm-tests --target wasm32-wasip1
//! ```

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    runner::main()
}

/// Cargo builds every program of a package for the target of its tests.
#[cfg(target_family = "wasm")]
fn main() {}

#[cfg(not(target_family = "wasm"))]
mod runner {
    use std::process::ExitCode;

    use wasmtime::{Engine, Linker, Module, Result, Store, format_err};
    use wasmtime_wasi::p1::{self, WasiP1Ctx};
    use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx};

    pub fn main() -> ExitCode {
        match run(std::env::args().skip(1).collect()) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("wasi-runner: {error:?}");
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the program `arguments[0]` with all of `arguments`.
    fn run(arguments: Vec<String>) -> Result<ExitCode> {
        let program =
            arguments.first().ok_or_else(|| format_err!("usage: wasi-runner PROGRAM ARGUMENT..."))?;
        let directory = tempfile::tempdir()?;
        let mut wasi = WasiCtx::builder();
        wasi.inherit_stdout().inherit_stderr().args(&arguments);
        // A panic ends the program, and captured output would end with it.
        wasi.env("RUST_TEST_NOCAPTURE", "1");
        // Before the directory, which copies the flag.
        wasi.allow_blocking_current_thread(true);
        wasi.preopened_dir(directory.path(), "/", FsPerms::ReadWrite)?;

        let engine = Engine::default();
        let module = Module::from_file(&engine, program)?;
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |wasi: &mut WasiP1Ctx| wasi)?;
        let mut store = Store::new(&engine, wasi.build_p1());
        let start =
            linker.instantiate(&mut store, &module)?.get_typed_func::<(), ()>(&mut store, "_start")?;
        match start.call(&mut store, ()) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => Ok(u8::try_from(*code).map_or(ExitCode::FAILURE, ExitCode::from)),
                None => Err(error),
            },
        }
    }
}
