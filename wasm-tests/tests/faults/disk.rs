//! A disk in memory that remembers, in order, everything that happened to it.
//!
//! From the journal up to any moment it makes [`Image`]s: what may be found
//! after the power went at that moment. What was synced is always there; of the
//! rest a [`Loss`] chooses.

use std::collections::{BTreeMap, BTreeSet};

use wasm_tests::random::Random;

/// Index of a file's bytes, whatever the file is called.
pub type Inode = usize;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Dir,
    File(Inode),
}

/// One change, or one promise to keep changes.
#[derive(Clone, Debug)]
enum Event {
    /// From here on `path` leads to `node`, or nowhere.
    Name {
        path: String,
        node: Option<Node>,
    },
    Write {
        inode: Inode,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: Inode,
        len: usize,
    },
    SyncFile {
        inode: Inode,
    },
    SyncDir {
        path: String,
    },
}

/// When a name is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Once its directory was synced: all that POSIX promises.
    ByDirectory,
    /// In the order they changed, and with every sync of a file all before it:
    /// what journalling file systems do. For hosts that cannot sync directories.
    InOrder,
    /// In `InOrder`'s place, a file system that promises nothing about names.
    Never,
}

/// What goes wrong while the disk is in use.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Longest write and read are drawn below this number of bytes.
    pub transfer_bytes_max: Option<(usize, Random)>,
    /// Bytes that can still be written.
    pub space: Option<usize>,
    /// Syncs that succeed before all fail.
    pub good_syncs: Option<usize>,
    /// Syncs do nothing and say that they did.
    pub syncs_lie: bool,
}

/// Which unsynced changes are found after a crash.
#[derive(Debug)]
pub enum Loss<'a> {
    /// All.
    Nothing,
    /// None.
    Everything,
    /// Any blocks of any writes, and any names.
    Some(&'a mut Random),
    /// All but a part of the last write.
    Tail(&'a mut Random),
}

/// Bytes that a disk writes together.
const BLOCK_BYTES: usize = 512;

/// Files and directories at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub dirs: BTreeSet<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A disk in use.
#[derive(Debug, Default)]
pub struct Disk {
    /// What was there at the start, all of it durable.
    base: Image,
    base_inodes: BTreeMap<String, Inode>,
    names: BTreeMap<String, Node>,
    contents: Vec<Vec<u8>>,
    journal: Vec<Event>,
    pub faults: Faults,
    /// Syncs asked for so far.
    pub syncs: usize,
}

/// Why the disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSpace,
    Io,
}

pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    /// A disk that holds `image` durably.
    pub fn new(image: Image) -> Self {
        let mut disk = Disk::default();
        for dir in &image.dirs {
            disk.names.insert(dir.clone(), Node::Dir);
        }
        for (path, bytes) in &image.files {
            let inode = disk.contents.len();
            disk.contents.push(bytes.clone());
            disk.names.insert(path.clone(), Node::File(inode));
            disk.base_inodes.insert(path.clone(), inode);
        }
        disk.base = image;
        disk
    }

    /// What `path` leads to; `""` is the root.
    pub fn node(&self, path: &str) -> Option<Node> {
        if path.is_empty() { Some(Node::Dir) } else { self.names.get(path).copied() }
    }

    /// Names in a directory, in order, with what they lead to.
    pub fn list(&self, dir: &str) -> Vec<(String, Node)> {
        let inside = self.names.iter().filter(|(path, _)| parent(path) == dir);
        inside.map(|(path, node)| (path.rsplit('/').next().unwrap_or(path).to_owned(), *node)).collect()
    }

    pub fn create_file(&mut self, path: &str) -> Inode {
        let inode = self.contents.len();
        self.contents.push(Vec::new());
        self.set_name(path, Some(Node::File(inode)));
        inode
    }

    pub fn set_name(&mut self, path: &str, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.journal.push(Event::Name { path: path.to_owned(), node });
    }

    pub fn content(&self, inode: Inode) -> &[u8] {
        &self.contents[inode]
    }

    /// Bytes of a read or write of `len` bytes that happen at once.
    pub fn transfer(&mut self, len: usize) -> usize {
        match &mut self.faults.transfer_bytes_max {
            Some((max, random)) => len.min(1 + random.below(*max)),
            None => len,
        }
    }

    /// Writes a part of `bytes`, not nothing, and says how much.
    pub fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut len = self.transfer(bytes.len());
        if let Some(space) = &mut self.faults.space {
            if *space == 0 && len > 0 {
                return Err(Refusal::NoSpace);
            }
            len = len.min(*space);
            *space -= len;
        }
        let bytes = bytes[..len].to_vec();
        write_at(&mut self.contents[inode], offset, &bytes);
        self.journal.push(Event::Write { inode, offset, bytes });
        Ok(len)
    }

    pub fn truncate(&mut self, inode: Inode, len: usize) {
        self.contents[inode].resize(len, 0);
        self.journal.push(Event::Truncate { inode, len });
    }

    pub fn sync_file(&mut self, inode: Inode) -> Result<(), Refusal> {
        self.sync(Event::SyncFile { inode })
    }

    pub fn sync_dir(&mut self, path: &str) -> Result<(), Refusal> {
        self.sync(Event::SyncDir { path: path.to_owned() })
    }

    fn sync(&mut self, event: Event) -> Result<(), Refusal> {
        self.syncs += 1;
        if self.faults.good_syncs.is_some_and(|good| self.syncs > good) {
            return Err(Refusal::Io);
        }
        if !self.faults.syncs_lie {
            self.journal.push(event);
        }
        Ok(())
    }

    /// The present moment.
    pub fn now(&self) -> usize {
        self.journal.len()
    }

    /// The same disk at the moment `now`, its faults gone: what a process finds
    /// whose predecessor was killed. Nothing is lost, and nothing unsynced is
    /// safe.
    pub fn rewound(&self, now: usize) -> Disk {
        let mut disk = Disk::new(self.base.clone());
        disk.contents.resize(self.contents.len(), Vec::new());
        for event in &self.journal[..now] {
            match event {
                Event::Name { path, node: Some(node) } => drop(disk.names.insert(path.clone(), *node)),
                Event::Name { path, node: None } => drop(disk.names.remove(path)),
                Event::Write { inode, offset, bytes } => {
                    write_at(&mut disk.contents[*inode], *offset, bytes);
                }
                Event::Truncate { inode, len } => disk.contents[*inode].resize(*len, 0),
                Event::SyncFile { .. } | Event::SyncDir { .. } => {}
            }
        }
        disk.journal = self.journal[..now].to_vec();
        disk
    }

    /// What is found after a crash at the moment `now`.
    pub fn image(&self, now: usize, names: Names, loss: &mut Loss<'_>) -> Image {
        let journal = &self.journal[..now];
        let contents = self.contents_after(journal, loss);
        let mut image = Image { dirs: self.base.dirs.clone(), files: BTreeMap::new() };
        let mut inodes = self.base_inodes.clone();
        for (path, node) in durable_names(journal, names, loss) {
            image.dirs.remove(path);
            inodes.remove(path);
            match node {
                Some(Node::Dir) => drop(image.dirs.insert(path.to_owned())),
                Some(Node::File(inode)) => drop(inodes.insert(path.to_owned(), inode)),
                None => {}
            }
        }
        // Without its directory nothing can be found.
        let dirs = image.dirs.clone();
        let reachable = |path: &str| {
            let mut dir = parent(path);
            while !dir.is_empty() && dirs.contains(dir) {
                dir = parent(dir);
            }
            dir.is_empty()
        };
        image.dirs.retain(|path| reachable(path));
        let files = inodes.into_iter().filter(|(path, _)| reachable(path));
        image.files = files.map(|(path, inode)| (path, contents[inode].clone())).collect();
        image
    }

    /// Bytes of every inode after a crash.
    fn contents_after(&self, journal: &[Event], loss: &mut Loss<'_>) -> Vec<Vec<u8>> {
        let mut contents: Vec<Vec<u8>> = vec![Vec::new(); self.contents.len()];
        for (path, inode) in &self.base_inodes {
            contents[*inode] = self.base.files[path].clone();
        }
        let mut synced = vec![0; contents.len()];
        let mut last_write = None;
        for (at, event) in journal.iter().enumerate() {
            match event {
                Event::SyncFile { inode } => synced[*inode] = at,
                Event::Write { .. } => last_write = Some(at),
                _ => {}
            }
        }
        for (at, event) in journal.iter().enumerate() {
            match event {
                Event::Write { inode, offset, bytes } => {
                    let content = &mut contents[*inode];
                    if at < synced[*inode] {
                        write_at(content, *offset, bytes);
                        continue;
                    }
                    match loss {
                        Loss::Nothing => write_at(content, *offset, bytes),
                        Loss::Everything => {}
                        Loss::Some(random) => {
                            let mut start = *offset;
                            let end = offset + bytes.len();
                            while start < end {
                                let next = end.min((start / BLOCK_BYTES + 1) * BLOCK_BYTES);
                                if random.one_in(2) {
                                    write_at(content, start, &bytes[start - offset..next - offset]);
                                }
                                start = next;
                            }
                        }
                        Loss::Tail(random) => {
                            let cut = Some(at) == last_write;
                            let len = if cut { random.below(bytes.len() + 1) } else { bytes.len() };
                            write_at(content, *offset, &bytes[..len]);
                        }
                    }
                }
                Event::Truncate { inode, len } => {
                    let kept = at < synced[*inode]
                        || match loss {
                            Loss::Nothing | Loss::Tail(_) => true,
                            Loss::Everything => false,
                            Loss::Some(random) => random.one_in(2),
                        };
                    if kept {
                        contents[*inode].resize(*len, 0);
                    }
                }
                _ => {}
            }
        }
        contents
    }
}

/// Changes of names that are found after a crash, in order.
fn durable_names<'a>(
    journal: &'a [Event],
    names: Names,
    loss: &mut Loss<'_>,
) -> Vec<(&'a str, Option<Node>)> {
    let mut synced_dirs = BTreeMap::new();
    let mut synced_files = 0;
    for (at, event) in journal.iter().enumerate() {
        match event {
            Event::SyncDir { path } => drop(synced_dirs.insert(path.as_str(), at)),
            Event::SyncFile { .. } => synced_files = at,
            _ => {}
        }
    }
    let is_durable = |at: usize, path: &str| match names {
        Names::ByDirectory => synced_dirs.get(parent(path)).is_some_and(|synced| at < *synced),
        Names::InOrder => at < synced_files,
        Names::Never => false,
    };
    // Later changes of a lost one are lost with it: of its path, or of all.
    let mut lost = BTreeSet::new();
    let mut found = Vec::new();
    for (at, event) in journal.iter().enumerate() {
        let Event::Name { path, node } = event else { continue };
        let chain = if names == Names::InOrder { "" } else { path.as_str() };
        let kept = is_durable(at, path)
            || !lost.contains(chain)
                && match loss {
                    Loss::Nothing | Loss::Tail(_) => true,
                    Loss::Everything => false,
                    Loss::Some(random) => random.one_in(2),
                };
        if kept {
            found.push((path.as_str(), *node));
        } else {
            lost.insert(chain);
        }
    }
    found
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

#[test]
fn images_hold_what_was_synced() {
    let mut disk = Disk::default();
    disk.set_name("d", Some(Node::Dir));
    disk.sync_dir("").unwrap();
    let file = disk.create_file("d/f");
    disk.write(file, 0, b"synced").unwrap();
    disk.sync_file(file).unwrap();
    let without_name = disk.now();
    disk.sync_dir("d").unwrap();
    disk.write(file, 6, b" unsynced").unwrap();
    let now = disk.now();

    let read = |now, names, mut loss: Loss<'_>| disk.image(now, names, &mut loss).files.get("d/f").cloned();
    assert_eq!(read(now, Names::ByDirectory, Loss::Everything).unwrap(), b"synced");
    assert_eq!(read(now, Names::ByDirectory, Loss::Nothing).unwrap(), b"synced unsynced");
    assert_eq!(read(without_name, Names::ByDirectory, Loss::Everything), None);
    assert_eq!(read(without_name, Names::InOrder, Loss::Everything).unwrap(), b"synced");
    assert_eq!(read(now, Names::Never, Loss::Everything), None);
    let random = &mut Random::new(1);
    let mut tails = BTreeSet::new();
    for _ in 0..100 {
        tails.insert(read(now, Names::ByDirectory, Loss::Tail(random)).unwrap().len());
    }
    assert_eq!(tails, (6..=15).collect());
    assert_eq!(disk.image(2, Names::ByDirectory, &mut Loss::Everything).dirs.len(), 1);
    assert_eq!(disk.image(1, Names::ByDirectory, &mut Loss::Everything), Image::default());
    let rewound = disk.rewound(now);
    assert_eq!((&rewound.names, &rewound.contents), (&disk.names, &disk.contents));
    let image = |disk: &Disk| disk.image(now, Names::ByDirectory, &mut Loss::Everything);
    assert_eq!(image(&rewound), image(&disk));
}

#[test]
fn removed_names_come_back_until_their_directory_is_synced() {
    let image = Image { dirs: BTreeSet::new(), files: [("f".to_owned(), b"bytes".to_vec())].into() };
    let mut disk = Disk::new(image.clone());
    disk.set_name("f", None);
    assert_eq!(disk.image(1, Names::ByDirectory, &mut Loss::Everything), image);
    assert_eq!(disk.image(1, Names::ByDirectory, &mut Loss::Nothing), Image::default());
    disk.sync_dir("").unwrap();
    assert_eq!(disk.image(2, Names::ByDirectory, &mut Loss::Everything), Image::default());
}
