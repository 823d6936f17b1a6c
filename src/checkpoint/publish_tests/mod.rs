//! What `publish` promises, tried with every fault that the file system may have.
//!
//! The checkpoints are of a format of their own: the index says which generation it is of and names
//! its data files, and each data file says its generation too. All generations have the same size,
//! so only the content tells when files of two saves are mixed.

mod cases;
mod failures;
mod names;
mod power_cuts;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::cases::cases;
use super::layout::{DataFile, Layout};
use super::previous::{newest_complete, original, remove_left_over};
use super::publish::Publication;
use crate::error::{Code, Error, Result};
use crate::io::dir::create_parent;
use crate::io::fault::{Disk, Plan, Record, Watch, crash_states};
use crate::io::write::TempFile;
use crate::naming;
use crate::state::CheckpointState;

/// Where a reader finds a data file: under its own name, or, for a `.prev` without one, under the
/// original's.
fn data_path(prefix: &Path, suffix: &str) -> PathBuf {
    let own = naming::append(prefix, suffix);
    let substitute = original(prefix).map(|original| naming::append(original, suffix));
    match substitute {
        Some(other) if !own.exists() && other.exists() => other,
        _ => own,
    }
}

fn data_text(generation: u32, shard: u32, shards: u32) -> String {
    format!("{generation:04} {shard}-{shards}")
}

fn index_text(generation: u32, shards: u32) -> String {
    format!("{generation:04} {shards} end")
}

/// Generation and number of shards.
fn parse_index(text: &str) -> Option<(u32, u32)> {
    let mut words = text.split(' ');
    let generation = words.next()?.parse().ok()?;
    let shards = words.next()?.parse().ok()?;
    (words.next()? == "end").then_some((generation, shards))
}

fn sidecar_text(generation: u32) -> String {
    format!("{generation:04} sidecar")
}

fn suffix(shard: u32, shards: u32) -> String {
    format!(".data-{shard:05}-of-{shards:05}")
}

fn data_files(index: &Path) -> Result<Vec<DataFile>> {
    let text = std::fs::read_to_string(index).map_err(|error| Error::io(&error, index))?;
    let (_, shards) = parse_index(&text).ok_or_else(|| Error::data_loss("not an index"))?;
    let file = |shard| DataFile {
        suffix: suffix(shard, shards),
        min_size: data_text(0, shard, shards).len() as u64,
    };
    Ok((0..shards).map(file).collect())
}

fn v2() -> Layout<'static> {
    Layout::v2(&data_files)
}

fn state_text(latest: &str) -> String {
    CheckpointState {
        model_checkpoint_path: latest.to_owned(),
        all_model_checkpoint_paths: vec!["other".to_owned(), latest.to_owned()],
        all_model_checkpoint_timestamps: vec![1.0, 2.5],
        last_preserved_timestamp: Some(0.5),
    }
    .to_text()
}

/// A save of generation `generation` to `m` in `dir`.
struct Save {
    generation: u32,
    shards: u32,
    sidecar: bool,
    state: Option<String>,
    sync: bool,
}

impl Save {
    fn run(&self, dir: &Path) -> Result<()> {
        self.run_checked(dir, &|| Ok(()))
    }

    fn run_checked(&self, dir: &Path, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let prefix = dir.join("m");
        let mut data = Vec::new();
        for shard in 0..self.shards {
            let path = naming::data_file(&prefix, shard, self.shards);
            let temp = TempFile::create(&path)?;
            temp.write_at(0, data_text(self.generation, shard, self.shards).as_bytes())?;
            data.push(temp);
        }
        if self.sidecar {
            let temp = TempFile::create(&naming::sidecar_file(&prefix))?;
            temp.write_at(0, sidecar_text(self.generation).as_bytes())?;
            data.push(temp);
        }
        let commit = TempFile::create(&naming::index_file(&prefix))?;
        commit.write_at(0, index_text(self.generation, self.shards).as_bytes())?;
        Publication {
            prefix,
            layout: v2(),
            data,
            commit,
            state_file: dir.join("checkpoint"),
            state: self.state.clone().map(String::into_bytes),
            sync: self.sync,
            check,
        }
        .publish()
    }
}

/// What there is before a save, and the save.
#[derive(Clone, Default)]
struct Case {
    name: &'static str,
    /// Shards of the complete checkpoint, generation 1; 0 for none.
    old: u32,
    /// Generation 0's data files, of so many shards, without an index.
    stale: u32,
    /// The index is cut in half.
    damaged: bool,
    /// What the state file names.
    state: Option<&'static str>,
    /// A complete `.prev` of generation 0 is there as well.
    left_over: bool,
    /// The last data file is missing.
    incomplete: bool,
    /// The old checkpoint is only there as a `.prev`, and generation 5's files lie about.
    torn: bool,
    /// Generation of the sidecar.
    sidecar: Option<u32>,
    new: u32,
    new_sidecar: bool,
    writes_state: bool,
    refuse_links: bool,
}

const LEFT_OVER: &str = "m.prev-0000000000000007";

impl Case {
    fn set_up(&self, dir: &Path) {
        let write = |prefix: &str, generation, shards, index| {
            for shard in 0..shards {
                let path = dir.join(format!("{prefix}{}", suffix(shard, shards)));
                std::fs::write(path, data_text(generation, shard, shards)).unwrap();
            }
            if index && shards > 0 {
                let path = dir.join(format!("{prefix}.index"));
                std::fs::write(path, index_text(generation, shards)).unwrap();
            }
        };
        write("m", 0, self.stale, false);
        if self.torn {
            write(LEFT_OVER, 1, self.old, true);
            write("m", 5, self.old, false);
        } else {
            write("m", 1, self.old, true);
        }
        if self.left_over {
            write(LEFT_OVER, 0, 1, true);
        }
        if self.damaged {
            std::fs::write(dir.join("m.index"), "0001").unwrap();
        }
        if self.incomplete {
            let last = suffix(self.old - 1, self.old);
            std::fs::remove_file(dir.join(format!("m{last}"))).unwrap();
        }
        if let Some(generation) = self.sidecar {
            std::fs::write(dir.join("m.crc32c"), sidecar_text(generation)).unwrap();
        }
        if let Some(latest) = self.state {
            std::fs::write(dir.join("checkpoint"), state_text(latest)).unwrap();
        }
        // What a dead process left.
        std::fs::write(dir.join("m.index.tmp-1-2"), "dead").unwrap();
    }

    fn save(&self, sync: bool) -> Save {
        Save {
            generation: 2,
            shards: self.new,
            sidecar: self.new_sidecar,
            state: self.writes_state.then(|| state_text("m")),
            sync,
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            refuse_links: self.refuse_links,
            ..Plan::default()
        }
    }

    /// The generation found before the save; `None` if there is nothing complete.
    fn old_generation(&self) -> Option<u32> {
        (self.old > 0 && !self.damaged && !self.incomplete).then_some(1)
    }

    /// What the state file names after the save.
    fn expected_state(&self) -> Option<&'static str> {
        match self.state {
            _ if self.writes_state => Some("m"),
            Some(LEFT_OVER) => Some("m"),
            other => other,
        }
    }

    /// The names that TensorFlow would leave.
    fn expected_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::from(["m.index".to_owned()]);
        for shards in [self.old, self.stale, self.new] {
            names.extend((0..shards).map(|shard| format!("m{}", suffix(shard, shards))));
        }
        if self.new_sidecar {
            names.insert("m.crc32c".to_owned());
        }
        if self.state.is_some() || self.writes_state {
            names.insert("checkpoint".to_owned());
        }
        names
    }

    /// Checks that a sidecar beside an index is of one save with it, unless it never was.
    fn check_sidecar(&self, dir: &Path) -> std::result::Result<(), String> {
        let (Ok(Some(generation)), Ok(text)) = (
            open(&dir.join("m"), true),
            std::fs::read_to_string(dir.join("m.crc32c")),
        ) else {
            return Ok(());
        };
        let was = self.sidecar.map(sidecar_text);
        if text == sidecar_text(generation) || generation == 1 && Some(&text) == was.as_ref() {
            return Ok(());
        }
        Err(format!("generation {generation} has {text}"))
    }

    /// Checks what holds at every instant, and returns the generation that is found; an error says
    /// what does not hold.
    fn check(&self, dir: &Path) -> Found {
        let found = match lookup(dir) {
            // It was like that before.
            Err(text) if self.damaged && text == "a damaged index" => None,
            Err(text) if self.incomplete && text.ends_with("00001-of-00002 is missing") => None,
            found => found?,
        };
        let is_old = match found {
            None | Some(0) => self.old_generation().is_none(),
            Some(1) => self.old_generation().is_some(),
            found => found == Some(2),
        };
        if !is_old {
            return Err(format!("found {found:?}"));
        }
        let Ok(text) = std::fs::read(dir.join("checkpoint")) else {
            return match self.state {
                Some(_) => Err("the state file is lost".to_owned()),
                None => Ok(found),
            };
        };
        let state = CheckpointState::parse(&text).map_err(|error| error.to_string())?;
        let latest = state.model_checkpoint_path.clone();
        if text != state_text(&latest).into_bytes() {
            return Err(format!("state {}", text.escape_ascii()));
        }
        if latest == "other" {
            if self.state != Some("other") {
                return Err("a state from nowhere".to_owned());
            }
        } else if found.is_none() {
            if self.state != Some(&latest) {
                return Err("the state names m too early".to_owned());
            }
        } else {
            // As TensorFlow opens it.
            let literal = open(&dir.join(&latest), !self.refuse_links)?;
            if literal.is_none() && !(self.refuse_links && found.is_some()) {
                return Err(format!("the state names {latest}, which is not there"));
            }
        }
        Ok(found)
    }

    /// Checks the state file that a successful save leaves.
    fn check_state(&self, dir: &Path) -> std::result::Result<(), String> {
        let state = std::fs::read_to_string(dir.join("checkpoint")).ok();
        if state == self.expected_state().map(state_text) {
            return Ok(());
        }
        Err(format!("the state is {state:?}"))
    }
}

/// A generation, or what is wrong.
type Found = std::result::Result<Option<u32>, String>;

/// The generation of the checkpoint at `prefix`: `None` without an index, an error if it is not
/// what one save has written.
fn open(prefix: &Path, literal: bool) -> Found {
    let Ok(index) = std::fs::read_to_string(naming::index_file(prefix)) else {
        return Ok(None);
    };
    let (generation, shards) = parse_index(&index).ok_or("a damaged index")?;
    for shard in 0..shards {
        let path = if literal {
            naming::data_file(prefix, shard, shards)
        } else {
            data_path(prefix, &suffix(shard, shards))
        };
        let text =
            std::fs::read_to_string(&path).map_err(|_| format!("{} is missing", path.display()))?;
        if text != data_text(generation, shard, shards) {
            return Err(format!("{} has {text}", path.display()));
        }
    }
    Ok(Some(generation))
}

/// The generation that a reader of `m` finds.
fn lookup(dir: &Path) -> Found {
    let prefix = dir.join("m");
    let found = open(&prefix, true)?;
    if found.is_some() {
        return Ok(found);
    }
    match newest_complete(&prefix, &v2()).unwrap() {
        Some(kept) => {
            assert_eq!(original(&kept), Some(prefix.as_path()));
            open(&kept, false)
        }
        None => Ok(None),
    }
}

/// A folder in memory if possible: thousands of saves that sync take their time on a disk.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn set_up(case: &Case) -> TempDir {
    let dir = scratch();
    case.set_up(dir.path());
    dir
}

/// Checks that a save after whatever happened leaves TensorFlow's files and nothing else.
fn check_next_save(case: &Case, dir: &Path, sync: bool) -> std::result::Result<(), String> {
    let watch = Watch::on(dir, case.plan());
    let next = Save {
        generation: 3,
        state: Some(state_text("m")),
        ..case.save(sync)
    };
    next.run(dir).map_err(|error| error.to_string())?;
    drop(watch);
    let mut expected = case.expected_names();
    expected.insert("checkpoint".to_owned());
    let names = Disk::read(dir).names();
    match lookup(dir)? {
        Some(3) if names == expected => case.check_sidecar(dir),
        found => Err(format!("then found {found:?} among {names:?}")),
    }
}

/// How many operations the save of `case` takes.
fn operations(case: &Case, sync: bool) -> usize {
    let dir = set_up(case);
    let watch = Watch::on(dir.path(), case.plan());
    case.save(sync).run(dir.path()).unwrap();
    watch.count()
}

fn is_sync(record: &Record) -> bool {
    matches!(record, Record::Sync(_) | Record::SyncDir(_))
}
