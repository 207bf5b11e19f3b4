//! Installs what is missing, where that needs no rights on the machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{command, find, output, read, root, run, say, target};

/// Targets that the engine is built for, beside the machine's own.
pub const TARGETS: &[&str] = &["wasm32-wasip1", "wasm32-wasip2", "wasm32-unknown-unknown"];

/// Why a suite cannot run.
pub enum Missing {
    /// The machine lacks this; the suite is skipped.
    Needs(&'static str),
    /// An installation failed, so the suite did too.
    Failed(String),
}

impl From<String> for Missing {
    fn from(message: String) -> Self {
        Missing::Failed(message)
    }
}

/// Adds the Rust targets that are not there.
pub fn rust_targets(targets: &[&str]) -> Result<(), String> {
    let missing: Vec<_> = targets.iter().filter(|target| !has_target(target)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say("Adding Rust targets, the standard library compiled for WebAssembly:");
    run(command("rustup").args(["target", "add"]).args(missing)).map_err(|error| {
        format!(
            "{error}\nWithout rustup, install these targets for your Rust compiler: {}",
            targets.join(", ")
        )
    })
}

fn has_target(target: &str) -> bool {
    let directory = output(command("rustc").args(["--print", "target-libdir", "--target", target]));
    directory.is_some_and(|directory| Path::new(directory.trim_end()).is_dir())
}

/// The runner that cargo starts for tests in Node and in a browser. Its version
/// must be that of the library exactly, so Cargo.lock decides.
pub fn wasm_bindgen_runner() -> Result<PathBuf, String> {
    let version = locked_version("wasm-bindgen")?;
    let tools = target().join("tools");
    let ours =
        tools.join("bin").join("wasm-bindgen-test-runner").with_extension(std::env::consts::EXE_EXTENSION);
    for runner in [Some(ours.clone()), find("wasm-bindgen-test-runner")].into_iter().flatten() {
        let answer = output(command(&runner).arg("--version")).unwrap_or_default();
        if answer.split_whitespace().any(|word| word == version) {
            return Ok(runner);
        }
    }
    say(&format!("Building wasm-bindgen's test runner {version} into target/tools, once; it takes minutes:"));
    run(crate::shell::cargo()
        .args(["install", "--quiet", "--force", "wasm-bindgen-cli", "--version", &version, "--root"])
        .arg(&tools)
        // It runs for moments: time to build it is what counts.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"))?;
    Ok(ours)
}

fn locked_version(package: &str) -> Result<String, String> {
    let name = format!("name = \"{package}\"");
    let lock = read(&root().join("Cargo.lock"))?;
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(str::to_owned).ok_or_else(|| format!("Cargo.lock has no version of {package}"))
}

/// A Python with the packages of examples/python/requirements.txt.
pub fn python() -> Result<PathBuf, Missing> {
    let venv = target().join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let requirements = root().join("examples/python/requirements.txt");
    let wanted = read(&requirements)?;
    // Written last, so that an interrupted installation starts anew.
    let stamp = venv.join("requirements.txt");
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let system = find("python3").ok_or(Missing::Needs("python3"))?;
    if output(command(&system).args(["-c", "import venv, ensurepip"])).is_none() {
        return Err(Missing::Needs("python3-venv"));
    }
    say("Making a Python environment with pyarrow, DuckDB and matplotlib in target/venv, once:");
    run(command(&system).args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(command(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&requirements))?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}

/// A Node that tests run in.
pub fn node() -> Result<(), Missing> {
    find("node").map(drop).ok_or(Missing::Needs("node"))
}

/// The driver of a Chromium that is there too.
pub fn chromedriver() -> Result<PathBuf, Missing> {
    let browsers = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    browsers.iter().find_map(|name| find(name)).ok_or(Missing::Needs("chromium"))?;
    find("chromedriver").ok_or(Missing::Needs("chromedriver"))
}
