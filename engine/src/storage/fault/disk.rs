//! A disk with a page cache: what processes see, and what of it is durable.
//!
//! Every change is an [`Event`], so that a disk at any earlier moment is made
//! again by applying events to the disk at the start. Contents are lists of
//! shared blocks: a copy of a disk costs its names, not its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh64::Xxh64;

use super::{Crash, Names, Random};

/// Bytes that a page cache writes back together.
const BLOCK_BYTES: usize = 4096;

/// A file, whatever it is called.
pub(super) type Inode = usize;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(Inode),
}

/// One change, or what makes changes durable.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// From here on `path` leads to `node`, or nowhere.
    Name { path: Arc<str>, node: Option<Node> },
    /// Bytes are written.
    Write { inode: Inode, offset: usize, bytes: Bytes },
    /// The file is cut.
    Truncate { inode: Inode, len: usize },
    /// What was written since the last sync is durable.
    Sync { inode: Inode },
    /// All bytes that can be read are durable, whatever became of earlier syncs.
    SyncAll { inode: Inode },
    /// A sync failed: what was written since the last one never reaches the
    /// disk, though it can still be read.
    Forget { inode: Inode },
    /// The names in a directory are durable.
    SyncDir { path: Arc<str> },
}

/// Bytes, in blocks of which all but the last are full.
#[derive(Clone, Default)]
struct Content {
    blocks: Vec<Arc<Vec<u8>>>,
}

impl Content {
    fn len(&self) -> usize {
        match self.blocks.split_last() {
            Some((last, full)) => full.len() * BLOCK_BYTES + last.len(),
            None => 0,
        }
    }

    fn resize(&mut self, len: usize) {
        let count = len.div_ceil(BLOCK_BYTES);
        self.blocks.truncate(count);
        // The last block so far grows or shrinks, then come blocks of zeros.
        let from = self.blocks.len().saturating_sub(1);
        self.blocks.resize_with(count, Arc::default);
        for (index, block) in self.blocks.iter_mut().enumerate().skip(from) {
            let wanted = (len - index * BLOCK_BYTES).min(BLOCK_BYTES);
            if block.len() != wanted {
                Arc::make_mut(block).resize(wanted, 0);
            }
        }
    }

    fn write(&mut self, offset: usize, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.len() {
            self.resize(end);
        }
        let mut at = offset;
        while !bytes.is_empty() {
            let start = at % BLOCK_BYTES;
            let len = bytes.len().min(BLOCK_BYTES - start);
            let (now, rest) = bytes.split_at(len);
            Arc::make_mut(&mut self.blocks[at / BLOCK_BYTES])[start..start + len].copy_from_slice(now);
            at += len;
            bytes = rest;
        }
    }

    /// `len` bytes at `offset`, if there are so many.
    fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len).filter(|end| *end <= self.len())?;
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let block = &self.blocks[at / BLOCK_BYTES];
            let start = at % BLOCK_BYTES;
            let stop = block.len().min(start + end - at);
            bytes.extend_from_slice(&block[start..stop]);
            at += stop - start;
        }
        Some(bytes)
    }

    fn hash(&self, hasher: &mut Xxh64) {
        hasher.write_usize(self.len());
        self.blocks.iter().for_each(|block| hasher.write(block));
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Bytes),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write(offset, bytes) => content.write(*offset, bytes),
            Change::Truncate(len) => content.resize(*len),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Content,
    durable: Content,
    /// What was done since the last sync.
    changes: Vec<Change>,
    /// A sync failed: `durable` and `changes` do not add up to `now`.
    lossy: bool,
}

impl File {
    fn sync(&mut self) {
        if self.lossy {
            self.changes.iter().for_each(|change| change.apply(&mut self.durable));
        } else {
            self.durable = self.now.clone();
        }
        self.changes.clear();
    }

    /// What is found after a loss of power that spares some changes.
    fn lose_some(&self, random: &mut Random) -> Content {
        let mut found = self.durable.clone();
        match random.below(3) {
            0 => self.changes.iter().for_each(|change| change.apply(&mut found)),
            1 => {}
            _ => {
                for change in &self.changes {
                    match change {
                        Change::Write(offset, bytes) => lose_blocks(&mut found, *offset, bytes, random),
                        change if random.one_in(2) => change.apply(&mut found),
                        Change::Truncate(_) => {}
                    }
                }
            }
        }
        // The length may be durable before the bytes are.
        if found.len() < self.now.len() && random.one_in(3) {
            found.resize(self.now.len());
        }
        found
    }
}

/// Writes some blocks of `bytes`.
fn lose_blocks(content: &mut Content, offset: usize, bytes: &[u8], random: &mut Random) {
    let end = offset + bytes.len();
    let mut start = offset;
    while start < end {
        let next = end.min((start / BLOCK_BYTES + 1) * BLOCK_BYTES);
        if random.one_in(2) {
            content.write(start, &bytes[start - offset..next - offset]);
        }
        start = next;
    }
}

/// A disk in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    mode: Names,
    /// Names as processes see them. The root is always there.
    names: BTreeMap<Arc<str>, Node>,
    durable_names: BTreeMap<Arc<str>, Node>,
    /// Changes of names that are not durable, in order.
    name_changes: Vec<(Arc<str>, Option<Node>)>,
    files: BTreeMap<Inode, File>,
    next_inode: Inode,
    /// The file that was written to last.
    last_written: Option<Inode>,
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk {
    pub fn new(mode: Names) -> Disk {
        Disk { mode, ..Disk::default() }
    }

    /// What `path` leads to; `""` is the root.
    pub fn node(&self, path: &str) -> Option<Node> {
        if path.is_empty() { Some(Node::Dir) } else { self.names.get(path).copied() }
    }

    /// Names in a directory.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let inside = self.names.keys().filter(|path| parent(path) == dir);
        inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect()
    }

    /// Paths of all files, ascending.
    pub fn paths(&self) -> Vec<String> {
        let files = self.names.iter().filter(|(_, node)| **node != Node::Dir);
        files.map(|(path, _)| path.to_string()).collect()
    }

    /// A path of the file, for messages.
    pub fn path(&self, inode: Inode) -> String {
        let found = self.names.iter().find(|(_, node)| **node == Node::File(inode));
        found.map_or_else(|| "a removed file".into(), |(path, _)| path.to_string())
    }

    pub fn next_inode(&self) -> Inode {
        self.next_inode
    }

    pub fn len(&self, inode: Inode) -> usize {
        self.files.get(&inode).map_or(0, |file| file.now.len())
    }

    pub fn read(&self, inode: Inode, offset: u64, len: usize) -> Option<Vec<u8>> {
        match self.files.get(&inode) {
            Some(file) => file.now.read(offset, len),
            // Nothing was written to it yet.
            None => (offset == 0 && len == 0).then(Vec::new),
        }
    }

    /// True if the last change of the file was a cut.
    pub fn was_cut(&self, inode: Inode) -> bool {
        let last = self.files.get(&inode).and_then(|file| file.changes.last());
        matches!(last, Some(Change::Truncate(_)))
    }

    /// What was written to the file last, if that is not synced.
    pub fn last_write(&self, inode: Inode) -> Option<&Bytes> {
        match self.files.get(&inode)?.changes.last()? {
            Change::Write(_, bytes) => Some(bytes),
            Change::Truncate(_) => None,
        }
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Name { path, node } => {
                match node {
                    Some(node) => self.names.insert(Arc::clone(path), *node),
                    None => self.names.remove(path),
                };
                if let Some(Node::File(inode)) = *node {
                    self.next_inode = self.next_inode.max(inode + 1);
                }
                self.name_changes.push((Arc::clone(path), *node));
            }
            Event::Write { inode, offset, bytes } => {
                self.last_written = Some(*inode);
                self.change(*inode, Change::Write(*offset, bytes.clone()));
            }
            Event::Truncate { inode, len } => self.change(*inode, Change::Truncate(*len)),
            Event::Sync { inode } => {
                self.file(*inode).sync();
                self.names_in_order();
            }
            Event::SyncAll { inode } => {
                let file = self.file(*inode);
                file.lossy = false;
                file.sync();
                self.names_in_order();
            }
            Event::Forget { inode } => {
                let file = self.file(*inode);
                file.lossy |= !file.changes.is_empty();
                file.changes.clear();
            }
            Event::SyncDir { path } => {
                let changes = std::mem::take(&mut self.name_changes);
                let (durable, left) = changes.into_iter().partition(|(name, _)| parent(name) == &**path);
                self.name_changes = left;
                self.make_durable(durable);
            }
        }
    }

    fn file(&mut self, inode: Inode) -> &mut File {
        self.files.entry(inode).or_default()
    }

    fn change(&mut self, inode: Inode, change: Change) {
        let file = self.file(inode);
        change.apply(&mut file.now);
        file.changes.push(change);
    }

    /// Where names become durable in their order, a sync takes all with it.
    fn names_in_order(&mut self) {
        if self.mode == Names::InOrder {
            let changes = std::mem::take(&mut self.name_changes);
            self.make_durable(changes);
        }
    }

    fn make_durable(&mut self, changes: Vec<(Arc<str>, Option<Node>)>) {
        changes.into_iter().for_each(|(path, node)| rename(&mut self.durable_names, path, node));
    }

    /// The disk as it is found after a crash.
    pub fn crash(&self, crash: Crash) -> Disk {
        match crash {
            Crash::Kill => {
                let mut disk = self.clone();
                let names = disk.names.values().chain(disk.durable_names.values());
                let changed = disk.name_changes.iter().filter_map(|(_, node)| node.as_ref());
                let reachable: BTreeSet<Inode> = names.chain(changed).filter_map(inode_of).collect();
                disk.files.retain(|inode, _| reachable.contains(inode));
                disk
            }
            Crash::LoseAll => self.found(self.durable_names.clone(), |file| file.durable.clone()),
            Crash::LoseSome(seed) => {
                let random = &mut Random::new(seed);
                let names = self.lose_names(random);
                self.found(names, |file| file.lose_some(random))
            }
            Crash::TearLast(seed) => self.tear_last(&mut Random::new(seed)),
        }
    }

    fn lose_names(&self, random: &mut Random) -> BTreeMap<Arc<str>, Node> {
        let mut names = self.durable_names.clone();
        let all = random.one_in(3);
        // Later changes of a lost name are lost with it, or of all names.
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for (path, node) in &self.name_changes {
            let chain: &str = if self.mode == Names::InOrder { "" } else { path };
            if all || !lost.contains(chain) && random.one_in(2) {
                rename(&mut names, Arc::clone(path), *node);
            } else {
                lost.insert(chain);
            }
        }
        names
    }

    fn tear_last(&self, random: &mut Random) -> Disk {
        let mut names = self.durable_names.clone();
        for (path, node) in &self.name_changes {
            rename(&mut names, Arc::clone(path), *node);
        }
        let torn = self.last_written.and_then(|inode| {
            let file = self.files.get(&inode)?;
            let at = file.changes.iter().rposition(|change| matches!(change, Change::Write(..)))?;
            Some((inode, at))
        });
        let mut disk = self.found(names, |file| {
            let mut content = file.durable.clone();
            file.changes.iter().for_each(|change| change.apply(&mut content));
            content
        });
        if let Some((inode, at)) = torn
            && let Some(file) = self.files.get(&inode)
            && disk.files.contains_key(&inode)
        {
            let mut content = file.durable.clone();
            for (index, change) in file.changes.iter().enumerate() {
                match change {
                    Change::Write(offset, bytes) if index == at => {
                        content.write(*offset, &bytes[..random.below(bytes.len() as u64 + 1) as usize]);
                    }
                    change => change.apply(&mut content),
                }
            }
            disk.files.insert(inode, File { durable: content.clone(), now: content, ..File::default() });
        }
        disk
    }

    /// A disk that holds these names, and what `content` says of each file, all
    /// of it durable.
    fn found(&self, mut names: BTreeMap<Arc<str>, Node>, mut content: impl FnMut(&File) -> Content) -> Disk {
        // Without its directory nothing can be found.
        let dirs: BTreeSet<Arc<str>> =
            names.iter().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| Arc::clone(path)).collect();
        names.retain(|path, _| {
            let mut dir = parent(path);
            while !dir.is_empty() && dirs.contains(dir) {
                dir = parent(dir);
            }
            dir.is_empty()
        });
        let mut files = BTreeMap::new();
        for inode in names.values().filter_map(inode_of) {
            let content = self.files.get(&inode).map_or_else(Content::default, &mut content);
            files.insert(inode, File { durable: content.clone(), now: content, ..File::default() });
        }
        Disk {
            mode: self.mode,
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            files,
            next_inode: self.next_inode,
            last_written: None,
        }
    }

    /// A number that differs where the disks do.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh64::new(0);
        for names in [&self.names, &self.durable_names] {
            for (path, node) in names {
                hasher.write(path.as_bytes());
                hasher.write_u8(0);
                let Some(file) = inode_of(node).and_then(|inode| self.files.get(&inode)) else { continue };
                file.now.hash(&mut hasher);
                if !file.changes.is_empty() || file.lossy {
                    file.durable.hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }
}

fn inode_of(node: &Node) -> Option<Inode> {
    match node {
        Node::Dir => None,
        Node::File(inode) => Some(*inode),
    }
}

fn rename(names: &mut BTreeMap<Arc<str>, Node>, path: Arc<str>, node: Option<Node>) {
    match node {
        Some(node) => names.insert(path, node),
        None => names.remove(&path),
    };
}
