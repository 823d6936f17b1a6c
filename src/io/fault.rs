//! Watches, fails and replays changes to the file system, for tests.
//!
//! A [`Watch`] concerns one folder and what is in it, so that tests that run at the same time do not
//! disturb each other. It can fail one operation, or kill the process as it were: that operation and
//! all later ones fail, so that neither undoing nor dropping changes anything. What succeeded is in
//! its log, from which [`crash_states`] makes every state that a power cut could leave.
//!
//! # What a power cut does
//!
//! Names and contents are apart. What was written to a file is there, torn or missing until the file
//! is synced. Changes of names in a folder since its last sync have each happened or not, in any
//! combination; one rename happens in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Op;

/// An operation that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    /// One that changes neither names nor contents as far as these tests are concerned.
    Other,
}

/// What goes wrong. Operations count from 0, failed ones included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// This operation fails with this errno.
    pub fail: Option<(usize, i32)>,
    /// The process is killed before this operation.
    pub kill: Option<usize>,
    /// The file system has no hard links.
    pub refuse_links: bool,
}

#[derive(Debug, Default)]
struct Faults {
    plan: Plan,
    count: usize,
    log: Vec<Record>,
}

static WATCHES: Mutex<Vec<(PathBuf, Arc<Mutex<Faults>>)>> = Mutex::new(Vec::new());

/// Watches a folder until it is dropped.
#[derive(Debug)]
pub struct Watch {
    dir: PathBuf,
    faults: Arc<Mutex<Faults>>,
}

impl Watch {
    pub fn on(dir: &Path, plan: Plan) -> Self {
        let faults = Arc::new(Mutex::new(Faults {
            plan,
            ..Faults::default()
        }));
        WATCHES.lock().push((dir.to_owned(), faults.clone()));
        Self {
            dir: dir.to_owned(),
            faults,
        }
    }

    /// How many operations were tried.
    pub fn count(&self) -> usize {
        self.faults.lock().count
    }

    /// What succeeded, in order.
    pub fn log(&self) -> Vec<Record> {
        self.faults.lock().log.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.lock().retain(|(dir, _)| *dir != self.dir);
    }
}

pub(super) fn perform<T>(op: Op<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let watch = WATCHES
        .lock()
        .iter()
        .find(|(dir, _)| path(&op).starts_with(dir))
        .map(|(_, faults)| faults.clone());
    let Some(watch) = watch else {
        return act();
    };
    let mut faults = watch.lock();
    let number = faults.count;
    faults.count += 1;
    let errno = match faults.plan {
        Plan { kill: Some(at), .. } if number >= at => Some(libc::EIO),
        Plan {
            fail: Some((at, errno)),
            ..
        } if number == at => Some(errno),
        Plan {
            refuse_links: true, ..
        } if matches!(op, Op::Link { .. }) => Some(libc::EPERM),
        _ => None,
    };
    if let Some(errno) = errno {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let done = act()?;
    faults.log.push(record(&op));
    Ok(done)
}

fn path<'a>(op: &Op<'a>) -> &'a Path {
    match *op {
        Op::Create(path)
        | Op::Reserve(path)
        | Op::Write { path, .. }
        | Op::Sync(path)
        | Op::Link { to: path, .. }
        | Op::Rename { to: path, .. }
        | Op::Remove(path)
        | Op::CreateDir(path)
        | Op::SyncDir(path) => path,
    }
}

fn record(op: &Op<'_>) -> Record {
    match *op {
        Op::Create(path) => Record::Create(path.to_owned()),
        Op::Write {
            path,
            offset,
            bytes,
        } => Record::Write(path.to_owned(), offset, bytes.to_owned()),
        Op::Sync(path) => Record::Sync(path.to_owned()),
        Op::Link { from, to } => Record::Link(from.to_owned(), to.to_owned()),
        Op::Rename { from, to } => Record::Rename(from.to_owned(), to.to_owned()),
        Op::Remove(path) => Record::Remove(path.to_owned()),
        Op::SyncDir(path) => Record::SyncDir(path.to_owned()),
        Op::Reserve(_) | Op::CreateDir(_) => Record::Other,
    }
}

/// The files of a folder: for each name, which file it is and what the file contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk(BTreeMap<PathBuf, (usize, Vec<u8>)>);

impl Disk {
    /// The files in `dir`, without subfolders.
    pub fn read(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut inodes = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let inode = entry.metadata().unwrap().ino();
            let number = inodes.iter().position(|&other| other == inode);
            let number = number.unwrap_or_else(|| {
                inodes.push(inode);
                inodes.len() - 1
            });
            let content = std::fs::read(entry.path()).unwrap();
            files.insert(PathBuf::from(entry.file_name()), (number, content));
        }
        Self(files).numbered()
    }

    /// Makes these files, and these hard links, in the empty folder `dir`.
    pub fn make(&self, dir: &Path) {
        let mut made: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (name, (inode, content)) in &self.0 {
            let path = dir.join(name);
            match made.get(inode) {
                Some(other) => std::fs::hard_link(other, &path).unwrap(),
                None => {
                    std::fs::write(&path, content).unwrap();
                    made.insert(*inode, path);
                }
            }
        }
    }

    /// The names.
    pub fn names(&self) -> BTreeSet<String> {
        let text = |name: &PathBuf| name.to_str().unwrap().to_owned();
        self.0.keys().map(text).collect()
    }

    /// The contents by name, which file is which left out.
    pub fn contents(&self) -> BTreeMap<&Path, &[u8]> {
        self.0
            .iter()
            .map(|(name, (_, content))| (name.as_path(), content.as_slice()))
            .collect()
    }

    /// With files numbered by their first name, so that equal states compare equal.
    fn numbered(self) -> Self {
        let mut order = Vec::new();
        let files = self.0.into_iter().map(|(name, (inode, content))| {
            let number = order.iter().position(|&other| other == inode);
            let number = number.unwrap_or_else(|| {
                order.push(inode);
                order.len() - 1
            });
            (name, (number, content))
        });
        Self(files.collect())
    }
}

/// Content of a file, on disk and as written.
#[derive(Clone)]
struct Content {
    synced: Vec<u8>,
    written: Vec<u8>,
}

/// One change of names: each name's new file, or none.
type Change = Vec<(PathBuf, Option<usize>)>;

struct Model {
    files: Vec<Content>,
    /// As every process sees them.
    names: BTreeMap<PathBuf, usize>,
    /// As they are on disk.
    synced: BTreeMap<PathBuf, usize>,
    /// What the disk does not have yet.
    pending: Vec<Change>,
}

/// Every state that a power cut may leave during or after the operations of `log` in `dir`, which
/// began with the files `before`; `from` leaves out cuts before that operation. The names in `before`
/// are on disk, and so are the contents, except of those that `is_unsynced` picks.
pub fn crash_states(
    dir: &Path,
    before: &Disk,
    is_unsynced: &dyn Fn(&Path) -> bool,
    log: &[Record],
    from: usize,
) -> BTreeSet<Disk> {
    let mut model = Model {
        files: Vec::new(),
        names: BTreeMap::new(),
        synced: BTreeMap::new(),
        pending: Vec::new(),
    };
    for (name, (inode, content)) in &before.0 {
        while model.files.len() <= *inode {
            model.files.push(Content {
                synced: Vec::new(),
                written: Vec::new(),
            });
        }
        let written = content.clone();
        let synced = if is_unsynced(name) {
            Vec::new()
        } else {
            content.clone()
        };
        model.files[*inode] = Content { synced, written };
        model.names.insert(dir.join(name), *inode);
    }
    model.synced = model.names.clone();
    let mut states = BTreeSet::new();
    for (number, record) in log.iter().enumerate() {
        // Between two syncs, what a later cut may leave includes what an earlier one may.
        if number >= from && matches!(record, Record::Sync(_) | Record::SyncDir(_)) {
            model.cut(dir, &mut states);
        }
        model.step(record);
    }
    model.cut(dir, &mut states);
    states
}

fn is_temporary(path: &Path) -> bool {
    path.to_str().unwrap().contains(".tmp-")
}

impl Model {
    fn step(&mut self, record: &Record) {
        match record {
            Record::Create(path) => {
                self.files.push(Content {
                    synced: Vec::new(),
                    written: Vec::new(),
                });
                self.change(vec![(path.clone(), Some(self.files.len() - 1))]);
            }
            Record::Write(path, offset, bytes) => {
                let written = &mut self.files[self.names[path]].written;
                let start = usize::try_from(*offset).unwrap();
                let end = start + bytes.len();
                written.resize(written.len().max(end), 0);
                written[start..end].copy_from_slice(bytes);
            }
            Record::Sync(path) => {
                let file = &mut self.files[self.names[path]];
                file.synced = file.written.clone();
            }
            Record::Link(from, to) => self.change(vec![(to.clone(), Some(self.names[from]))]),
            Record::Rename(from, to) => {
                let file = self.names[from];
                if self.names.get(to) != Some(&file) {
                    self.change(vec![(from.clone(), None), (to.clone(), Some(file))]);
                }
            }
            Record::Remove(path) => self.change(vec![(path.clone(), None)]),
            Record::SyncDir(dir) => {
                let pending = std::mem::take(&mut self.pending);
                for change in pending {
                    if change[0].0.parent() == Some(dir) {
                        apply(&mut self.synced, &change);
                    } else {
                        self.pending.push(change);
                    }
                }
            }
            Record::Other => {}
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    /// Adds all states that a cut now may leave.
    fn cut(&self, dir: &Path, states: &mut BTreeSet<Disk>) {
        // Nobody cares whether a temporary name is there.
        let is_open = |change: &&Change| !change.iter().all(|(path, _)| is_temporary(path));
        let open = self.pending.iter().filter(is_open).count();
        assert!(open <= 12, "{open} changes without a sync");
        for chosen in 0..1u32 << open {
            let mut names = self.synced.clone();
            let mut number = 0;
            for change in &self.pending {
                let happened = if is_open(&change) {
                    number += 1;
                    chosen >> (number - 1) & 1 == 1
                } else {
                    true
                };
                if happened {
                    apply(&mut names, change);
                }
            }
            self.contents(dir, &names, states);
        }
    }

    /// Adds the states with these names and every content that their files may have.
    fn contents(&self, dir: &Path, names: &BTreeMap<PathBuf, usize>, states: &mut BTreeSet<Disk>) {
        let mut choices: Vec<BTreeMap<usize, Vec<u8>>> = vec![BTreeMap::new()];
        for (path, &file) in names {
            let content = &self.files[file];
            if choices[0].contains_key(&file) {
                continue;
            }
            let mut variants = vec![content.written.clone()];
            if content.synced != content.written && !is_temporary(path) {
                variants.push(content.synced.clone());
                variants.push(content.written[..content.written.len() / 2].to_vec());
            }
            choices = choices
                .iter()
                .flat_map(|choice| {
                    variants.iter().map(|variant| {
                        let mut choice = choice.clone();
                        choice.insert(file, variant.clone());
                        choice
                    })
                })
                .collect();
        }
        for choice in choices {
            let files = names.iter().map(|(path, file)| {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                (name, (*file, choice[file].clone()))
            });
            states.insert(Disk(files.collect()).numbered());
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
    for (path, file) in change {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}
