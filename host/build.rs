//! Builds the engine for the sandbox and encodes it as a component.
//!
//! The component is compiled by a second cargo with a target directory of its
//! own, `<target>/component`: it shares no lock with the cargo that runs this
//! script, and every profile of the host shares the one result. Beside
//! `duramen.wasm` for this crate to embed and others to find, the plain core
//! module `duramen-core.wasm` is written where `DURAMEN_CORE_MODULE=1` asks for
//! it; it is for hosts without component support.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-wasip1";

/// What the module is made of, relative to the workspace.
const SOURCES: &[&str] = &[
    ".cargo/config.toml",
    "Cargo.lock",
    "Cargo.toml",
    "engine/Cargo.toml",
    "engine/component",
    "engine/src",
    "engine/wit",
    "rust-toolchain.toml",
];

/// Variables of the surrounding build that would change the inner one: flags
/// would replace those of `.cargo/config.toml`, wrappers would lint instead of
/// compile, and profiles and directories belong to the host.
const FOREIGN: &[&str] = &[
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_ENCODED_",
    "CARGO_FEATURE_",
    "CARGO_INCREMENTAL",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CLIPPY_ARGS",
    "DEBUG",
    "HOST",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
];

fn main() {
    if let Err(error) = build() {
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let host = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let workspace = host.parent().ok_or("the host has no workspace above it")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    println!("cargo::rerun-if-env-changed=DURAMEN_CORE_MODULE");

    check_target()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let target = workspace.join(target).join("component");

    if env::var_os("DURAMEN_CORE_MODULE").is_some_and(|value| value == "1") {
        let core = compile(workspace, &target.join("core"), &["--no-default-features"])?;
        replace(&target.join("duramen-core.wasm"), &core)?;
    }
    let module = compile(workspace, &target, &[])?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()?;
    replace(&target.join("duramen.wasm"), &component)?;
    // The embedded copy is this build's own: another may replace the shared one.
    let embedded = PathBuf::from(var("OUT_DIR")?).join("duramen.wasm");
    replace(&embedded, &component)?;
    println!("cargo::rustc-env=DURAMEN_COMPONENT={}", embedded.display());
    Ok(())
}

fn var(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn check_target() -> Result<(), Box<dyn Error>> {
    let output =
        Command::new(var("RUSTC")?).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let directory = String::from_utf8(output.stdout)?;
    if output.status.success() && Path::new(directory.trim_end()).is_dir() {
        return Ok(());
    }
    Err(format!("the sandboxed engine needs the target {TARGET}; run: rustup target add {TARGET}").into())
}

/// Compiles the component's core module and returns its bytes.
fn compile(workspace: &Path, target: &Path, arguments: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .args(["build", "--locked", "--package", "duramen-component"])
        .args(["--target", TARGET, "--profile", "component", "--target-dir"])
        .arg(target)
        .args(arguments)
        // Where .cargo/config.toml with the wasm flags is found.
        .current_dir(workspace)
        // A hash seed in the module would otherwise differ from build to build.
        .env("CONST_RANDOM_SEED", "duramen");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| FOREIGN.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cargo did not start: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the sandboxed engine did not build:\n{text}").into());
    }
    let module = target.join(TARGET).join("component/duramen_component.wasm");
    fs::read(&module).map_err(|error| format!("{}: {error}", module.display()).into())
}

/// Writes a file whole, and only if it differs: readers see the old bytes or the
/// new ones.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| format!("{}: {error}", path.display()).into())
}
