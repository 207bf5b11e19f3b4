//! What the system tells about this process and its files: on Linux, or not at all.

use std::fs;
use std::path::Path;

use crate::Result;

/// The most memory that this process has had, in bytes: files that it maps count.
pub fn memory_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(number_after(&status, "VmHWM:")? << 10)
}

/// Bytes that this process has handed to `write` and its like so far.
pub fn written_bytes() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/self/io").ok()?, "wchar:")
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Bytes on disk of all files below `directory`, without holes.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { allocated(&metadata) };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn allocated(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // POSIX leaves the unit open; Linux and the BSDs have this one.
    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// What a run needs to be judged: processor, memory, system, and the file system of
/// `directory`, each as name and text.
pub fn machine(directory: &Path) -> Vec<(&'static str, String)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = number_after(&read("/proc/meminfo"), "MemTotal:");
    let mounts = read("/proc/self/mounts");
    let directory = directory.canonicalize().unwrap_or_default();
    [
        ("processor", model.map(|(_, name)| name.trim().to_owned())),
        ("cores", Some(cores.to_string())),
        ("memory", memory.map(|kib| format!("{:.1} GiB", kib as f64 / 1_048_576.0))),
        ("system", Some(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH))),
        ("kernel", Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
        ("file system", file_system(&mounts, &directory)),
    ]
    .into_iter()
    .filter_map(|(name, text)| Some((name, text.filter(|text| !text.is_empty())?)))
    .collect()
}

/// The kind of the mount that `directory` is on: the one with the longest path.
fn file_system(mounts: &str, directory: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let around = mounts.filter(|(path, _)| directory.starts_with(path));
    around.max_by_key(|(path, _)| path.len()).map(|(_, kind)| kind.to_owned())
}

/// The version of a package, by the lock file that this program was built with; the
/// latest, where a dependency has an older one beside ours.
pub fn locked_version(package: &str) -> Option<&'static str> {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let (_, rest) = LOCK.rsplit_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_behind_their_names() {
        let text = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  1024 kB\n";
        assert_eq!(number_after(text, "VmHWM:"), Some(1024));
        assert_eq!(number_after(text, "Swap:"), None);
    }

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /database tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/bench")).as_deref(), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/home")).as_deref(), Some("ext4"));
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert_eq!(locked_version("duramen"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(locked_version("no such package"), None);
    }
}
