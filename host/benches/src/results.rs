//! The results of a benchmark with what they depend on, kept in a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::engines::Kind;
use crate::report::Report;
use crate::system::{locked_version, machine};

/// The results of all runs of a benchmark.
#[derive(Clone, Debug)]
pub struct Results {
    /// The benchmark, and the bytes of values if they are not the usual.
    pub name: String,
    /// The command line behind `cargo xtask bench`.
    pub command: String,
    /// The machine, as names and texts.
    pub machine: Vec<(String, String)>,
    /// What was compared, and versions of what it is made of.
    pub versions: Vec<(String, String)>,
    /// The figures.
    pub report: Report,
}

impl Results {
    /// Results that this program has measured in `directory`.
    pub fn measured(name: String, directory: &Path, report: Report) -> Self {
        let machine = machine(directory).into_iter().map(|(name, text)| (name.to_owned(), text));
        let kinds =
            Kind::ENGINES.into_iter().filter(|kind| report.subjects().iter().any(|s| s == kind.name()));
        let versions = kinds.map(|kind| (kind.name().to_owned(), version(kind)));
        Results { name, command: command(), machine: machine.collect(), versions: versions.collect(), report }
    }

    /// Writes them into `directory`; the file.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let object = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs.iter().map(|(name, text)| (name.clone(), json!(text))).collect()
        };
        let json = json!({
            "benchmark": self.name,
            "command": self.command,
            "machine": object(&self.machine),
            "versions": object(&self.versions),
            "results": self.report.to_json(),
        });
        let path = directory.join(format!("{}.json", self.name));
        std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")?;
        Ok(path)
    }

    /// All that are in `directory`, by their names, to be compared with `baseline`.
    ///
    /// # Errors
    /// Where a file cannot be read; one that is no result of a benchmark is left out.
    pub fn load_all(directory: &Path, baseline: &str) -> Result<Vec<Results>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let json = serde_json::from_str(&std::fs::read_to_string(&path)?);
                match json.map_err(Into::into).and_then(|json| Self::from_json(&json, baseline)) {
                    Ok(results) => all.push(results),
                    Err(error) => eprintln!("{} is left out: {error}", path.display()),
                }
            }
        }
        all.sort_by(|a, b| (order(&a.name), &a.name).cmp(&(order(&b.name), &b.name)));
        Ok(all)
    }

    fn from_json(json: &Value, baseline: &str) -> Result<Results> {
        let text = |json: &Value| json.as_str().unwrap_or_default().to_owned();
        let pairs = |json: &Value| {
            let pairs = json.as_object().into_iter().flatten();
            pairs.map(|(name, value)| (name.clone(), text(value))).collect()
        };
        Ok(Results {
            name: text(&json["benchmark"]),
            command: text(&json["command"]),
            machine: pairs(&json["machine"]),
            versions: pairs(&json["versions"]),
            report: Report::from_json(&json["results"], baseline)?,
        })
    }
}

/// Where a benchmark stands among the others: what most look for comes first.
fn order(name: &str) -> usize {
    const FIRST: [&str; 7] = ["kv", "synced", "ycsb", "reopen", "scale", "scan", "limits"];
    let stem = name.split('-').next().unwrap_or(name);
    FIRST.iter().position(|first| *first == stem).unwrap_or(FIRST.len())
}

/// The command line, without where things are on this machine.
fn command() -> String {
    let mut arguments = std::env::args().skip(1);
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--directory" {
            arguments.next();
        } else if !argument.starts_with("--directory=") {
            kept.push(argument);
        }
    }
    kept.join(" ")
}

/// `rocksdb 0.24.0, librocksdb-sys 0.17.3+10.4.2`; our own with the commit, as
/// between two releases it changes daily.
fn version(kind: Kind) -> String {
    let packages = kind.packages().iter().filter_map(|package| {
        let commit = if *package == "duramen" { commit() } else { String::new() };
        Some(format!("{package} {}{commit}", locked_version(package)?))
    });
    packages.chain(kind.library()).collect::<Vec<_>>().join(", ")
}

/// ` (1a2b3c4)`, or nothing where there is no repository.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--exclude=*"]).output();
    let described = git.ok().filter(|output| output.status.success());
    described.map_or(String::new(), |output| format!(" ({})", String::from_utf8_lossy(&output.stdout).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Measure;

    #[test]
    fn results_are_loaded_as_they_were_saved_and_strangers_left_out() {
        let directory = std::env::temp_dir().join(format!("duramen-results-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["limits", "kv-16384", "kv"] {
            let mut report = Report::new(vec!["duramen".into()], "rocksdb");
            report.add(0, vec![Measure::new("put", "ns", 1.0)]);
            Results::measured(name.into(), &directory, report).save(&directory).unwrap();
        }
        std::fs::write(directory.join("other.json"), "[1]").unwrap();
        let all = Results::load_all(&directory, "rocksdb").unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let names: Vec<&str> = all.iter().map(|results| results.name.as_str()).collect();
        assert_eq!(names, ["kv", "kv-16384", "limits"]);
        assert_eq!(all[0].report.median("put", "duramen"), Some(1.0));
        assert!(all[0].versions[0].1.starts_with("duramen "));
    }
}
