//! What `publish` promises, tried with every fault that the file system may have.
//!
//! The checkpoints are of a format of their own: the index says which generation it is of and names
//! its data files, and each data file says its generation too. All generations have the same size,
//! so only the content tells when files of two saves are mixed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

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
    new: u32,
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
        if self.state.is_some() || self.writes_state {
            names.insert("checkpoint".to_owned());
        }
        names
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

fn cases() -> Vec<Case> {
    let base = Case {
        new: 2,
        ..Case::default()
    };
    let over = Case {
        old: 2,
        state: Some("m"),
        writes_state: true,
        ..base.clone()
    };
    vec![
        Case {
            name: "first save",
            writes_state: true,
            ..base.clone()
        },
        Case {
            name: "first save over stale shards, with a state of its own",
            stale: 2,
            state: Some("other"),
            writes_state: true,
            ..base.clone()
        },
        Case {
            name: "overwrite",
            ..over.clone()
        },
        Case {
            name: "overwrite, state not written",
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, state names something else and is not written",
            state: Some("other"),
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, no state",
            state: None,
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, first state",
            state: None,
            ..over.clone()
        },
        Case {
            name: "more shards",
            old: 1,
            ..over.clone()
        },
        Case {
            name: "fewer shards, stale ones in the way",
            old: 2,
            stale: 1,
            new: 1,
            ..over.clone()
        },
        Case {
            name: "no links",
            refuse_links: true,
            ..over.clone()
        },
        Case {
            name: "no links, state not written, one shard more and a stale one",
            old: 1,
            stale: 2,
            writes_state: false,
            refuse_links: true,
            ..over.clone()
        },
        Case {
            name: "damaged",
            damaged: true,
            ..over.clone()
        },
        Case {
            name: "incomplete",
            incomplete: true,
            ..over.clone()
        },
        Case {
            name: "left-over .prev that the state names",
            left_over: true,
            state: Some(LEFT_OVER),
            ..over.clone()
        },
        Case {
            name: "left-over .prev that the state names and that is not written",
            left_over: true,
            state: Some(LEFT_OVER),
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "torn by a crash",
            torn: true,
            state: Some(LEFT_OVER),
            ..over.clone()
        },
        Case {
            name: "torn by a crash, no links",
            torn: true,
            refuse_links: true,
            state: Some(LEFT_OVER),
            ..over
        },
    ]
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
        Some(3) if names == expected => Ok(()),
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

#[test]
fn a_save_leaves_exactly_the_files_that_tensorflow_leaves() {
    for case in cases() {
        for sync in [true, false] {
            let dir = set_up(&case);
            let watch = Watch::on(dir.path(), case.plan());
            case.save(sync).run(dir.path()).unwrap();
            assert_eq!(watch.log().iter().any(is_sync), sync);
            let disk = Disk::read(dir.path());
            assert_eq!(disk.names(), case.expected_names(), "{}", case.name);
            assert_eq!(case.check(dir.path()), Ok(Some(2)), "{}", case.name);
            assert_eq!(case.check_state(dir.path()), Ok(()), "{}", case.name);
        }
    }
}

#[test]
fn a_save_that_fails_anywhere_leaves_what_was_there() {
    for case in cases() {
        let count = operations(&case, true);
        for at in 0..count {
            for errno in [libc::EIO, libc::ENOSPC] {
                let dir = set_up(&case);
                let before = Disk::read(dir.path());
                let plan = Plan {
                    fail: Some((at, errno)),
                    ..case.plan()
                };
                let watch = Watch::on(dir.path(), plan);
                let result = case.save(true).run(dir.path());
                drop(watch);
                let after = Disk::read(dir.path());
                let place = format!("{}, operation {at}", case.name);
                match result {
                    Ok(()) => {
                        // What failed was a removal after the end.
                        assert_eq!(case.check(dir.path()), Ok(Some(2)), "{place}");
                    }
                    Err(_) if case.torn => {
                        assert_eq!(case.check(dir.path()), Ok(Some(1)), "{place}");
                    }
                    Err(error) => {
                        let expected = match errno {
                            libc::EIO => Code::DataLoss,
                            _ => Code::ResourceExhausted,
                        };
                        assert_eq!(error.code(), expected, "{place}");
                        assert_eq!(before.contents(), after.contents(), "{place}");
                    }
                }
                if errno == libc::EIO {
                    assert_eq!(check_next_save(&case, dir.path(), true), Ok(()), "{place}");
                }
            }
        }
    }
}

#[test]
fn a_cancelled_save_leaves_what_was_there() {
    for case in cases().into_iter().filter(|case| !case.torn) {
        let mut at = 0;
        loop {
            let dir = set_up(&case);
            let before = Disk::read(dir.path());
            let asked = Cell::new(0);
            let check = || {
                asked.set(asked.get() + 1);
                if asked.get() > at {
                    return Err(Error::cancelled("stop"));
                }
                Ok(())
            };
            let watch = Watch::on(dir.path(), case.plan());
            let result = case.save(true).run_checked(dir.path(), &check);
            drop(watch);
            let Err(error) = result else {
                break;
            };
            assert_eq!(error.code(), Code::Cancelled);
            let after = Disk::read(dir.path());
            assert_eq!(before.contents(), after.contents(), "{}, {at}", case.name);
            at += 1;
        }
        assert!(at >= 5);
    }
}

#[test]
fn a_process_killed_anywhere_leaves_a_complete_checkpoint() {
    for case in cases() {
        for sync in [true, false] {
            for at in 0..operations(&case, sync) {
                let dir = set_up(&case);
                let plan = Plan {
                    kill: Some(at),
                    ..case.plan()
                };
                let watch = Watch::on(dir.path(), plan);
                let _ = case.save(sync).run(dir.path());
                drop(watch);
                let checked = case
                    .check(dir.path())
                    .and_then(|_| check_next_save(&case, dir.path(), sync));
                assert_eq!(checked, Ok(()), "{}, operation {at}", case.name);
            }
        }
    }
}

#[test]
fn a_process_killed_while_it_makes_up_for_another_leaves_a_complete_checkpoint() {
    for case in cases().into_iter().filter(|case| case.old > 0) {
        for first in 0..operations(&case, false) {
            for second in 0.. {
                let dir = set_up(&case);
                let mut finished = false;
                for at in [first, second] {
                    let plan = Plan {
                        kill: Some(at),
                        ..case.plan()
                    };
                    let watch = Watch::on(dir.path(), plan);
                    let result = case.save(false).run(dir.path());
                    finished = result.is_ok() && watch.count() <= at;
                    drop(watch);
                    if let Err(wrong) = case.check(dir.path()) {
                        panic!("{}, killed at {first} and {second}: {wrong}", case.name);
                    }
                }
                let checked = check_next_save(&case, dir.path(), false);
                assert_eq!(checked, Ok(()), "{}, {first}, {second}", case.name);
                if finished {
                    break;
                }
            }
        }
    }
}

/// Checks a state that a power cut left, and that the next save gets along with it. `is_last`: after
/// the save had returned.
fn check_crash_state(case: &Case, state: &Disk, is_last: bool) -> std::result::Result<(), String> {
    let dir = scratch();
    state.make(dir.path());
    let found = case.check(dir.path())?;
    if is_last {
        case.check_state(dir.path())?;
        if found != Some(2) {
            return Err(format!("found {found:?} in the end"));
        }
    }
    check_next_save(case, dir.path(), false)?;
    // Should somebody remove the index, no mixture of two saves may come up from below.
    let dir = scratch();
    state.make(dir.path());
    let _ = std::fs::remove_file(dir.path().join("m.index"));
    lookup(dir.path()).map(|_| ())
}

/// A save with this fault: its folder, what was there before, and what it did.
fn recorded(case: &Case, plan: Plan) -> (PathBuf, Disk, Vec<Record>) {
    let dir = set_up(case);
    let before = Disk::read(dir.path());
    let watch = Watch::on(dir.path(), plan);
    let _ = case.save(true).run(dir.path());
    (dir.path().to_owned(), before, watch.log())
}

fn nothing(_: &Path) -> bool {
    false
}

/// What is wrong with the states that a power cut may leave during or after a save.
fn wrong_states(case: &Case, dir: &Path, before: &Disk, log: &[Record]) -> Vec<String> {
    // Once the save has returned, the new checkpoint is found.
    let last = crash_states(dir, before, &nothing, log, log.len());
    let mut wrong = Vec::new();
    for state in crash_states(dir, before, &nothing, log, 0) {
        if let Err(text) = check_crash_state(case, &state, last.contains(&state)) {
            wrong.push(format!("{}: {text} {:?}", case.name, state.names()));
        }
    }
    wrong
}

fn is_sync(record: &Record) -> bool {
    matches!(record, Record::Sync(_) | Record::SyncDir(_))
}

/// Whether it syncs a file that was there before the save.
fn is_sync_of_old(record: &Record) -> bool {
    matches!(record, Record::Sync(path) if !path.to_str().unwrap().contains(".tmp-"))
}

/// The log without one sync at a time.
fn mutations<'a>(
    log: &'a [Record],
    which: impl Fn(&Record) -> bool + 'a,
) -> impl Iterator<Item = (usize, Vec<Record>)> + 'a {
    let chosen = (0..log.len()).filter(move |&number| which(&log[number]));
    chosen.map(|number| {
        let mut mutated = log.to_vec();
        mutated[number] = Record::Other;
        (number, mutated)
    })
}

#[test]
fn a_power_cut_anywhere_leaves_a_complete_checkpoint() {
    for case in cases() {
        let (dir, before, log) = recorded(&case, case.plan());
        let states = crash_states(&dir, &before, &nothing, &log, 0).len();
        assert!(states > 5, "{}: only {states} states", case.name);
        assert_eq!(wrong_states(&case, &dir, &before, &log), [""; 0]);
    }
}

#[test]
fn a_power_cut_while_a_failed_save_is_undone_leaves_a_complete_checkpoint() {
    for case in cases() {
        for at in 0..operations(&case, true) {
            let plan = Plan {
                fail: Some((at, libc::EIO)),
                ..case.plan()
            };
            let (dir, before, log) = recorded(&case, plan);
            for state in crash_states(&dir, &before, &nothing, &log, 0) {
                let dir = scratch();
                state.make(dir.path());
                if let Err(wrong) = case.check(dir.path()) {
                    let names = state.names();
                    panic!("{}, failed at {at}: {wrong} {names:?}", case.name);
                }
            }
        }
    }
}

/// TensorFlow syncs nothing, so that what it has just written may still be missing on the disk when
/// it is overwritten.
#[test]
fn an_old_checkpoint_that_was_not_synced_is_safe_before_it_is_taken_apart() {
    let is_unsynced = |name: &Path| {
        let name = name.to_str().unwrap();
        name == "m.index" || name.starts_with("m.data-")
    };
    for case in cases().iter().filter(|case| case.name == "overwrite") {
        let (dir, before, log) = recorded(case, case.plan());
        let index = Record::Remove(dir.join("m.index"));
        let from = log.iter().position(|record| *record == index).unwrap();
        let is_lost = |log: &[Record]| {
            let states = crash_states(&dir, &before, &is_unsynced, log, from);
            let check = |state: &Disk| check_crash_state(case, state, false);
            states.iter().any(|state| check(state).is_err())
        };
        assert!(!is_lost(&log));
        for (number, mutated) in mutations(&log, is_sync_of_old) {
            assert!(is_lost(&mutated), "{:?}", log[number]);
        }
    }
}

/// Each sync is there for a reason: without it, some power cut does damage. Where one is of no use,
/// it is because another save needs it (the data files do not clash, say).
#[test]
fn without_any_one_sync_a_power_cut_does_damage() {
    for name in [
        "first save",
        "first save over stale shards, with a state of its own",
        "overwrite",
        "overwrite, state not written",
        "overwrite, state names something else and is not written",
        "overwrite, no state",
    ] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let (dir, before, log) = recorded(&case, case.plan());
        let is_new = |record: &Record| is_sync(record) && !is_sync_of_old(record);
        assert!(log.iter().filter(|record| is_new(record)).count() >= 7);
        for (number, mutated) in mutations(&log, is_new) {
            let wrong = wrong_states(&case, &dir, &before, &mutated);
            assert_ne!(wrong, [""; 0], "{name}: {:?}", &log[number - 1..=number]);
        }
    }
}

#[test]
fn saves_that_race_to_one_prefix_come_one_after_the_other() {
    let case = &cases()[2];
    let dir = set_up(case);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = dir.path();
            scope.spawn(move || {
                for round in 0..20 {
                    let save = Save {
                        generation: 100 + thread * 100 + round,
                        shards: 1 + thread % 2,
                        ..case.save(false)
                    };
                    save.run(path).unwrap();
                }
            });
        }
    });
    assert!(lookup(dir.path()).unwrap() >= Some(100));
    let mut expected = case.expected_names();
    expected.insert(format!("m{}", suffix(0, 1)));
    assert_eq!(Disk::read(dir.path()).names(), expected);
}

#[test]
fn a_save_over_an_index_that_cannot_be_read_now_changes_nothing() {
    let case = &cases()[2];
    let dir = set_up(case);
    let before = Disk::read(dir.path());
    let prefix = dir.path().join("m");
    let busy = |_: &Path| Err(Error::resource_exhausted("too many open files"));
    let publication = Publication {
        layout: Layout::v2(&busy),
        data: vec![TempFile::create(&naming::data_file(&prefix, 0, 2)).unwrap()],
        commit: TempFile::create(&naming::index_file(&prefix)).unwrap(),
        prefix,
        state_file: dir.path().join("checkpoint"),
        state: None,
        sync: false,
        check: &|| Ok(()),
    };
    let error = publication.publish().unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(Disk::read(dir.path()).contents(), before.contents());
}

/// Saves files of these contents under the names of V1, the last of them the commit file.
fn save_v1(dir: &Path, layout: Layout<'_>, files: &[(&str, &str)]) -> Result<()> {
    let mut temps = Vec::new();
    for (name, text) in files {
        temps.push(TempFile::with_bytes(
            &dir.join(name),
            text.as_bytes(),
            true,
        )?);
    }
    let commit = temps.pop().unwrap();
    Publication {
        prefix: dir.join("m"),
        layout,
        data: temps,
        commit,
        state_file: dir.join("checkpoint"),
        state: None,
        sync: true,
        check: &|| Ok(()),
    }
    .publish()
}

#[test]
fn a_v1_checkpoint_is_replaced_in_one_rename_and_brought_back() {
    let layout = Layout {
        commit: "",
        data: "",
        tail: "",
        data_files: &|_| Ok(Vec::new()),
    };
    for at in 0.. {
        let dir = scratch();
        let state = dir.path().join("checkpoint");
        std::fs::write(dir.path().join("m"), "old").unwrap();
        std::fs::write(&state, state_text("m")).unwrap();
        let before = Disk::read(dir.path());
        let plan = Plan {
            fail: Some((at, libc::EIO)),
            ..Plan::default()
        };
        let watch = Watch::on(dir.path(), plan);
        let result = save_v1(dir.path(), layout, &[("m", "new")]);
        let has_removed = watch.log().contains(&Record::Remove(dir.path().join("m")));
        let is_over = watch.count() <= at;
        drop(watch);
        let text = std::fs::read_to_string(dir.path().join("m")).unwrap();
        assert_eq!(std::fs::read_to_string(&state).unwrap(), state_text("m"));
        if result.is_ok() {
            assert_eq!(text, "new");
            assert!(!has_removed);
        } else {
            assert_eq!(Disk::read(dir.path()).contents(), before.contents());
        }
        if is_over {
            assert_eq!(Disk::read(dir.path()).names(), before.names());
            break;
        }
    }
}

#[test]
fn shard_0_of_v1_takes_the_part_of_the_index() {
    let layout = Layout {
        commit: "-00000-of-00002",
        data: "-",
        tail: "-?????-of-00002",
        data_files: &|_| {
            Ok(vec![DataFile {
                suffix: "-00001-of-00002".to_owned(),
                min_size: 1,
            }])
        },
    };
    let dir = scratch();
    let (first, second) = ("m-00000-of-00002", "m-00001-of-00002");
    for generation in ["old", "new"] {
        let watch = Watch::on(dir.path(), Plan::default());
        let files = [(second, generation), (first, generation)];
        save_v1(dir.path(), layout, &files).unwrap();
        let place = |record: Record| watch.log().iter().position(|other| *other == record);
        let removed = place(Record::Remove(dir.path().join(first)));
        assert_eq!(removed.is_some(), generation == "new");
        let renamed = |name: &str| {
            let is_it =
                |record: &Record| matches!(record, Record::Rename(_, to) if to.ends_with(name));
            watch.log().iter().position(is_it)
        };
        assert!(removed < renamed(second) && renamed(second) < renamed(first));
        let disk = Disk::read(dir.path());
        assert!(
            disk.contents()
                .values()
                .all(|text| *text == generation.as_bytes())
        );
        assert_eq!(disk.names(), [first, second].map(str::to_owned).into());
    }
}

#[test]
fn a_prefix_that_ends_in_a_slash_has_its_files_in_that_folder() {
    let dir = scratch();
    let prefix = PathBuf::from(format!("{}/sub/", dir.path().display()));
    assert!(create_parent(&prefix, true).unwrap());
    for _ in 0..2 {
        Publication {
            data: vec![
                TempFile::with_bytes(&naming::data_file(&prefix, 0, 1), b"0001 0-1", true).unwrap(),
            ],
            commit: TempFile::with_bytes(&naming::index_file(&prefix), b"0001 1 end", true)
                .unwrap(),
            layout: v2(),
            state_file: dir.path().join("sub/checkpoint"),
            prefix: prefix.clone(),
            state: None,
            sync: true,
            check: &|| Ok(()),
        }
        .publish()
        .unwrap();
        let names = Disk::read(&dir.path().join("sub")).names();
        let expected = [".data-00000-of-00001", ".index"];
        assert_eq!(names, expected.map(str::to_owned).into());
    }
}

#[test]
fn the_newest_complete_one_is_found_even_if_the_clock_went_back() {
    let case = Case {
        old: 2,
        left_over: true,
        new: 2,
        ..Case::default()
    };
    // A left-over from the future; the save is killed once its own `.prev` is all there is.
    let future = "m.prev-fffffffffffffff0";
    let killed = |at| {
        let dir = set_up(&case);
        for suffix in [".index", ".data-00000-of-00001"] {
            let path = |prefix| dir.path().join(format!("{prefix}{suffix}"));
            std::fs::rename(path(LEFT_OVER), path(future)).unwrap();
        }
        let plan = Plan {
            kill: Some(at),
            ..Plan::default()
        };
        let _watch = Watch::on(dir.path(), plan);
        let _ = case.save(false).run(dir.path());
        dir
    };
    let is_apart = |dir: &TempDir| !dir.path().join("m.index").exists();
    let dir = (0..).map(killed).find(is_apart).unwrap();
    let kept = newest_complete(&dir.path().join("m"), &v2())
        .unwrap()
        .unwrap();
    assert_eq!(kept, dir.path().join("m.prev-fffffffffffffff1"));
    // A newer one that is damaged does not count.
    std::fs::write(dir.path().join("m.prev-fffffffffffffff2.index"), "damaged").unwrap();
    assert_eq!(lookup(dir.path()), Ok(Some(1)));
    // With no name left, nothing is touched.
    std::fs::write(dir.path().join("m.prev-ffffffffffffffff.index"), "damaged").unwrap();
    let error = case.save(false).run(dir.path()).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(lookup(dir.path()), Ok(Some(1)));
}

#[test]
fn left_overs_go_once_no_state_names_them() {
    let case = Case {
        old: 1,
        left_over: true,
        state: Some(LEFT_OVER),
        ..Case::default()
    };
    let dir = set_up(&case);
    // A checkpoint of the user, which only looks similar.
    std::fs::write(dir.path().join("m.prev-1.index"), "mine").unwrap();
    let (prefix, state) = (dir.path().join("m"), dir.path().join("checkpoint"));
    remove_left_over(&prefix, &v2(), &state, true).unwrap();
    let expected = [
        "checkpoint",
        "m.data-00000-of-00001",
        "m.index",
        "m.index.tmp-1-2",
        "m.prev-1.index",
    ];
    let names = Disk::read(dir.path()).names();
    assert_eq!(names, expected.map(str::to_owned).into());
    assert_eq!(std::fs::read_to_string(state).unwrap(), state_text("m"));
    let nowhere = dir.path().join("none/m");
    remove_left_over(&nowhere, &v2(), &dir.path().join("none/checkpoint"), true).unwrap();
}
