//! What `merge` promises, tried with every fault that the file system may have.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    MergeOptions, Reader, RestoreData, RestoreOptions, RestoreTensor, SaveData, SaveOptions,
    SaveTensor, merge, save, save_shard,
};
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::io::fault::{Disk, Plan, Record, Watch, crash_states};
use crate::shape::Shape;
use crate::state::get_checkpoint_state;
use crate::transfer::{Call, Context, ContextOptions};

fn with_call<T>(act: impl FnOnce(&mut Call<'_>) -> T) -> T {
    let context = Context::new(ContextOptions::default()).unwrap();
    act(&mut Call::new(&context))
}

/// A tensor of floats: key, slice spec and values.
type Floats<'a> = (&'a str, &'a str, &'a [f32]);

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn with_tensors<T>(floats: &[Floats<'_>], act: impl FnOnce(&[SaveTensor<'_>]) -> T) -> T {
    let data: Vec<Vec<u8>> = floats.iter().map(|(_, _, values)| bytes(values)).collect();
    let tensors: Vec<SaveTensor<'_>> = floats
        .iter()
        .zip(&data)
        .map(|((key, slice_spec, values), data)| SaveTensor {
            key: key.as_bytes(),
            dtype: DType::Float,
            shape: Shape::new([i64::try_from(values.len()).unwrap()]).unwrap(),
            slice_spec,
            device_name: "",
            data: SaveData::Bytes(data.as_slice().into()),
        })
        .collect();
    act(&tensors)
}

const QUICK: SaveOptions = SaveOptions {
    global_step: None,
    format: crate::checkpoint::Format::V2,
    pad_step_number: false,
    update_state: false,
    save_relative_paths: false,
    no_sync: true,
    shard_by_device: false,
    max_shard_size: 0,
    alignment: 0,
};

fn save_floats(prefix: &Path, floats: &[Floats<'_>], options: &SaveOptions) {
    with_tensors(floats, |tensors| {
        with_call(|call| save(prefix, tensors, options, call)).unwrap();
    });
}

fn restore(prefix: &Path, floats: &[(&str, usize)]) -> Result<Vec<Vec<u8>>> {
    let mut data: Vec<Vec<u8>> = floats.iter().map(|(_, len)| vec![0; len * 4]).collect();
    let mut tensors: Vec<RestoreTensor<'_>> = floats
        .iter()
        .zip(&mut data)
        .map(|((key, len), data)| RestoreTensor {
            key: key.as_bytes(),
            dtype: DType::Float,
            shape: Shape::new([i64::try_from(*len).unwrap()]).unwrap(),
            slice_spec: "",
            device_name: "",
            data: RestoreData::Bytes(data.as_mut_slice().into()),
        })
        .collect();
    let reader = Reader::open(prefix)?;
    let options = RestoreOptions::default();
    with_call(|call| reader.restore(&mut tensors, &options, call))?.into_result()?;
    drop(tensors);
    Ok(data)
}

/// Saves what is to be merged as `p0` and `p1`.
fn save_parts(dir: &Path) {
    save_floats(&dir.join("p0"), &PART_0, &QUICK);
    save_floats(&dir.join("p1"), &PART_1, &QUICK);
}

const PART_0: [Floats<'_>; 2] = [("a", "", &[1.0]), ("x", "4 0,2", &[10.0, 11.0])];
const PART_1: [Floats<'_>; 2] = [("b", "", &[2.0]), ("x", "4 2,2", &[12.0, 13.0])];

fn parts(dir: &Path) -> [PathBuf; 2] {
    ["p0", "p1"].map(|name| dir.join(name))
}

/// Whether the part has exactly what was saved.
fn is_whole(dir: &Path, number: usize) -> bool {
    let part = &parts(dir)[number];
    let (key, value) = [("a", 1.0), ("b", 2.0)][number];
    restore(part, &[(key, 1)]).is_ok_and(|found| found == [bytes(&[value])])
        && super::find::check_complete(part).is_ok()
}

/// Which checkpoint `m` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Old,
    New,
}

/// What a reader of `m` finds; an error says what is wrong with it.
fn found(dir: &Path) -> std::result::Result<Found, String> {
    let prefix = dir.join("m");
    let new = restore(&prefix, &[("a", 1), ("b", 1), ("x", 4)]);
    let old = restore(&prefix, &[("a", 1), ("old", 1)]);
    let expected_new = [
        bytes(&[1.0]),
        bytes(&[2.0]),
        bytes(&[10.0, 11.0, 12.0, 13.0]),
    ];
    match (new, old) {
        (Ok(new), Err(_)) if new == expected_new => Ok(Found::New),
        (Err(_), Ok(old)) if old == [bytes(&[5.0]), bytes(&[6.0])] => Ok(Found::Old),
        (Err(new), Err(old)) if new.code() == Code::NotFound && old.code() == Code::NotFound => {
            match Reader::open(&prefix) {
                Err(error) if error.code() == Code::NotFound => Ok(Found::Nothing),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("{other:?}")),
    }
}

/// What there is before the merge.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Data files of the checkpoint that is overwritten; 0 for none.
    old: usize,
    refuse_links: bool,
}

const CASES: [Case; 5] = [
    Case {
        old: 0,
        refuse_links: false,
    },
    Case {
        old: 1,
        refuse_links: false,
    },
    Case {
        old: 2,
        refuse_links: false,
    },
    Case {
        old: 0,
        refuse_links: true,
    },
    Case {
        old: 2,
        refuse_links: true,
    },
];

impl Case {
    fn set_up(self) -> TempDir {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        save_parts(dir.path());
        if self.old > 0 {
            let options = SaveOptions {
                update_state: true,
                max_shard_size: if self.old > 1 { 1 } else { 0 },
                ..QUICK
            };
            let floats: [Floats<'_>; 2] = [("a", "", &[5.0]), ("old", "", &[6.0])];
            save_floats(&dir.path().join("m"), &floats, &options);
        }
        dir
    }

    fn merge(self, dir: &Path, sync: bool) -> Result<()> {
        let options = MergeOptions {
            no_sync: !sync,
            update_state: true,
            save_relative_paths: true,
            ..MergeOptions::default()
        };
        with_call(|call| merge(&parts(dir), &dir.join("m"), &options, call))
    }

    fn plan(self) -> Plan {
        Plan {
            refuse_links: self.refuse_links,
            ..Plan::default()
        }
    }

    fn before(self) -> Found {
        if self.old > 0 {
            Found::Old
        } else {
            Found::Nothing
        }
    }

    /// What holds after a crash, and that the merge can be made again.
    fn check_after_crash(self, dir: &Path) -> std::result::Result<(), String> {
        let first = found(dir)?;
        let whole = is_whole(dir, 0) && is_whole(dir, 1);
        if first != Found::New && (first != self.before() || !whole) {
            return Err(format!("{first:?}, parts whole: {whole}"));
        }
        let again = {
            let _watch = Watch::on(dir, self.plan());
            self.merge(dir, false)
        };
        match again {
            Ok(()) => {}
            Err(error) if error.message().contains("; the checkpoint exists") => {
                if first != Found::New {
                    return Err(error.to_string());
                }
            }
            Err(error) => return Err(error.to_string()),
        }
        let last = found(dir)?;
        if last != Found::New {
            return Err(format!("{last:?} in the end"));
        }
        Ok(())
    }
}

#[test]
fn a_merge_leaves_the_checkpoint_and_nothing_of_the_parts() {
    for case in CASES {
        let dir = case.set_up();
        case.merge(dir.path(), true).unwrap();
        assert_eq!(found(dir.path()), Ok(Found::New));
        let mut names = vec![
            "checkpoint",
            "m.data-00000-of-00002",
            "m.data-00001-of-00002",
            "m.index",
        ];
        if case.old == 1 {
            names.insert(1, "m.data-00000-of-00001");
        }
        let found: Vec<String> = Disk::read(dir.path()).names().into_iter().collect();
        assert_eq!(found, names, "{case:?}");
        let state = get_checkpoint_state(dir.path(), None).unwrap().unwrap();
        assert!(state.model_checkpoint_path.ends_with('m'));
    }
}

#[test]
fn a_merge_that_fails_leaves_the_parts_and_the_checkpoint_as_they_were() {
    for case in CASES {
        for at in 0.. {
            let dir = case.set_up();
            let before = Disk::read(dir.path());
            let plan = Plan {
                fail: Some((at, libc::EIO)),
                ..case.plan()
            };
            let watch = Watch::on(dir.path(), plan);
            let result = case.merge(dir.path(), true);
            let is_over = watch.count() <= at;
            drop(watch);
            match result {
                Ok(()) => assert_eq!(found(dir.path()), Ok(Found::New), "{case:?} {at}"),
                Err(error) => {
                    assert_eq!(error.code(), Code::DataLoss, "{error}");
                    assert_eq!(found(dir.path()), Ok(case.before()), "{case:?} {at}");
                    let now = Disk::read(dir.path());
                    let now: Vec<_> = now.contents().into_iter().collect();
                    let leftover = now.iter().filter(|(name, _)| {
                        let name = name.to_str().unwrap();
                        // One whose own removal failed.
                        name.contains(".tmp-") || name.contains(".prev-")
                    });
                    assert!(leftover.count() <= 3, "{case:?} {at} {now:?}");
                    for (name, content) in before.contents() {
                        assert!(now.contains(&(name, content)), "{case:?} {at} {name:?}");
                    }
                }
            }
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_merge_that_is_cancelled_leaves_everything_as_it_was() {
    for case in CASES {
        for at in 0.. {
            let dir = case.set_up();
            let before = Disk::read(dir.path());
            let context = Context::new(ContextOptions::default()).unwrap();
            let mut call = Call::new(&context);
            let mut asked = 0;
            call.progress = crate::transfer::Progress::new(Some(Box::new(|_| {
                asked += 1;
                asked <= at
            })));
            let options = MergeOptions {
                update_state: true,
                ..MergeOptions::default()
            };
            let result = merge(
                &parts(dir.path()),
                &dir.path().join("m"),
                &options,
                &mut call,
            );
            drop(call);
            match result {
                Ok(()) => {
                    assert!(at > 5);
                    break;
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::Cancelled);
                    assert_eq!(Disk::read(dir.path()).contents(), before.contents());
                }
            }
        }
    }
}

#[test]
fn a_merge_that_is_killed_can_be_made_again() {
    for case in CASES {
        for at in 0.. {
            let dir = case.set_up();
            let plan = Plan {
                kill: Some(at),
                ..case.plan()
            };
            let watch = Watch::on(dir.path(), plan);
            let _ = case.merge(dir.path(), true);
            let is_over = watch.count() <= at;
            drop(watch);
            let checked = case.check_after_crash(dir.path());
            assert_eq!(checked, Ok(()), "{case:?}, killed at {at}");
            let state = get_checkpoint_state(dir.path(), None).unwrap();
            if let Some(state) = state {
                let latest = dir.path().join(state.model_checkpoint_path);
                assert!(Reader::open(&latest).is_ok(), "{case:?} {at} {latest:?}");
            }
            if is_over {
                break;
            }
        }
    }
}

/// A merge: its folder, what was there before, and what it did.
fn recorded(case: Case) -> (PathBuf, Disk, Vec<Record>) {
    let dir = case.set_up();
    let before = Disk::read(dir.path());
    let watch = Watch::on(dir.path(), case.plan());
    case.merge(dir.path(), true).unwrap();
    (dir.path().to_owned(), before, watch.log())
}

fn made(state: &Disk) -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    state.make(dir.path());
    dir
}

#[test]
fn a_power_cut_leaves_the_checkpoint_or_the_parts() {
    for case in CASES {
        let (dir, before, log) = recorded(case);
        let states = crash_states(&dir, &before, &|_| false, &log, 0);
        assert!(states.len() > 5);
        for state in states {
            let dir = made(&state);
            let checked = case.check_after_crash(dir.path());
            assert_eq!(checked, Ok(()), "{case:?} {:?}", state.names());
        }
        for state in crash_states(&dir, &before, &|_| false, &log, log.len()) {
            assert_eq!(found(made(&state).path()), Ok(Found::New), "{case:?}");
        }
    }
}

/// The parts' writers may have left out the sync; the merge makes up for it before it publishes.
#[test]
fn parts_that_were_not_synced_are_on_disk_before_they_are_published() {
    let is_unsynced = |name: &Path| name.to_str().unwrap().starts_with("p");
    let case = CASES[0];
    let (dir, before, log) = recorded(case);
    let is_lost = |log: &[Record]| {
        let states = crash_states(&dir, &before, &is_unsynced, log, 0);
        states
            .iter()
            .any(|state| found(made(state).path()).is_err())
    };
    assert!(!is_lost(&log));
    let of_part = |record: &Record| matches!(record, Record::Sync(path) if path.to_str().unwrap().contains("/p"));
    assert_eq!(log.iter().filter(|record| of_part(record)).count(), 2);
    for number in (0..log.len()).filter(|&number| of_part(&log[number])) {
        let mut mutated = log.clone();
        mutated[number] = Record::Other;
        assert!(is_lost(&mutated), "{:?}", log[number]);
    }
}

#[test]
fn parts_that_stay_can_be_merged_again_even_if_that_fails() {
    let case = CASES[0];
    let keep = MergeOptions {
        keep_parts: true,
        ..MergeOptions::default()
    };
    for at in 0.. {
        let dir = case.set_up();
        let merge =
            || with_call(|call| merge(&parts(dir.path()), &dir.path().join("m"), &keep, call));
        merge().unwrap();
        // The old checkpoint's files and the parts' are the same now.
        let before = Disk::read(dir.path());
        let plan = Plan {
            fail: Some((at, libc::EIO)),
            ..Plan::default()
        };
        let watch = Watch::on(dir.path(), plan);
        let result = merge();
        let is_over = watch.count() <= at;
        drop(watch);
        assert_eq!(found(dir.path()), Ok(Found::New), "{at}");
        assert!(is_whole(dir.path(), 0) && is_whole(dir.path(), 1));
        let now = Disk::read(dir.path());
        for (name, content) in before.contents() {
            assert_eq!(now.contents().get(name), Some(&content), "{at} {name:?}");
        }
        if is_over {
            result.unwrap();
            break;
        }
    }
}

#[test]
fn shards_of_several_processes_become_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("m");
    let tensors: [&[Floats<'_>]; 3] = [&PART_0, &[], &PART_1];
    let saved: Vec<PathBuf> = (0..3u32)
        .map(|shard| {
            with_tensors(tensors[shard as usize], |tensors| {
                with_call(|call| save_shard(&prefix, shard, 3, Some("7"), tensors, &QUICK, call))
            })
            .unwrap()
        })
        .collect();
    assert_eq!(saved[1], dir.path().join("m_temp_7/part-00001-of-00003"));
    // A part without tensors is a checkpoint without tensors.
    assert!(Reader::open(&saved[1]).is_ok());
    let options = MergeOptions::default();
    with_call(|call| merge(&saved[1..2], &prefix, &options, call)).unwrap_err();
    with_call(|call| merge(&saved, &prefix, &options, call)).unwrap();
    assert_eq!(found(dir.path()), Ok(Found::New));
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_shard_that_cannot_be_saved_leaves_nothing() {
    for tensors in [&PART_0[..], &[]] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan {
                fail: Some((at, libc::ENOSPC)),
                ..Plan::default()
            };
            let watch = Watch::on(dir.path(), plan);
            let options = SaveOptions::default();
            let prefix = dir.path().join("m");
            let saved = with_tensors(tensors, |tensors| {
                with_call(|call| save_shard(&prefix, 0, 2, None, tensors, &options, call))
            });
            let is_over = watch.count() <= at;
            drop(watch);
            match saved {
                Ok(part) => assert!(Reader::open(&part).is_ok()),
                Err(error) => {
                    assert_eq!(error.code(), Code::ResourceExhausted);
                    // Unless making the folder's name durable failed.
                    let _ = std::fs::remove_dir(dir.path().join("m_temp"));
                    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{at}");
                }
            }
            if is_over {
                assert!(at > 5);
                break;
            }
        }
    }
}

#[test]
fn shards_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("m");
    let state = SaveOptions {
        update_state: true,
        ..QUICK
    };
    for (shard, num_shards, id, options) in [
        (0, 0, None, &QUICK),
        (2, 2, None, &QUICK),
        (0, 2, Some(""), &QUICK),
        (0, 2, Some("a/b"), &QUICK),
        (0, 2, None, &state),
    ] {
        with_tensors(&PART_0, |tensors| {
            let saved = with_call(|call| {
                save_shard(&prefix, shard, num_shards, id, tensors, options, call)
            });
            assert_eq!(saved.unwrap_err().code(), Code::InvalidArgument);
        });
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

type Spoil = fn(&Path);

#[test]
fn damaged_and_incomplete_parts_are_refused_by_name_and_left_alone() {
    let spoil: [(&str, Code, Spoil); 5] = [
        ("p1.index", Code::DataLoss, |dir| {
            std::fs::write(dir.join("p1.index"), "short").unwrap();
        }),
        ("p1.index", Code::DataLoss, |dir| {
            let mut bytes = std::fs::read(dir.join("p1.index")).unwrap();
            bytes[20] ^= 1;
            std::fs::write(dir.join("p1.index"), bytes).unwrap();
        }),
        ("p1.data-00000-of-00001", Code::NotFound, |dir| {
            std::fs::remove_file(dir.join("p1.data-00000-of-00001")).unwrap();
        }),
        ("p1.data-00000-of-00001", Code::OutOfRange, |dir| {
            std::fs::write(dir.join("p1.data-00000-of-00001"), "short").unwrap();
        }),
        ("p1.data-00000-of-00001", Code::FailedPrecondition, |dir| {
            std::fs::remove_file(dir.join("p1.data-00000-of-00001")).unwrap();
            std::fs::create_dir(dir.join("p1.data-00000-of-00001")).unwrap();
        }),
    ];
    for (file, code, spoil) in spoil {
        let dir = CASES[1].set_up();
        spoil(dir.path());
        let error = CASES[1].merge(dir.path(), false).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(error.file(), Some(dir.path().join(file).as_path()));
        assert_eq!(found(dir.path()), Ok(Found::Old));
        assert!(is_whole(dir.path(), 0));
        assert!(!dir.path().join("m.data-00000-of-00002").exists());
    }
}

#[test]
fn slices_that_nobody_could_read_are_not_merged() {
    for (floats, text) in [
        (("x", "4 1,2", &[0.0, 0.0][..]), "Overlapping slices"),
        (
            ("x", "5 2,2", &[0.0, 0.0][..]),
            "slices of one tensor disagree",
        ),
    ] {
        let dir = CASES[0].set_up();
        save_floats(&dir.path().join("p1"), &[floats], &QUICK);
        let error = CASES[0].merge(dir.path(), false).unwrap_err();
        assert_eq!(
            (error.code(), error.key()),
            (Code::InvalidArgument, Some(&b"x"[..]))
        );
        assert!(error.message().starts_with(text), "{error}");
        assert!(is_whole(dir.path(), 0));
    }
}

#[test]
fn a_checkpoint_is_not_merged_into_itself() {
    let dir = CASES[1].set_up();
    let mut parts = parts(dir.path()).to_vec();
    parts.push(dir.path().join("m"));
    let prefix = dir.path().join(".").join("m");
    let error =
        with_call(|call| merge(&parts, &prefix, &MergeOptions::default(), call)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(found(dir.path()), Ok(Found::Old));
}

#[test]
fn without_any_part_the_text_says_whether_the_checkpoint_is_there() {
    let dir = CASES[0].set_up();
    let merge = |options: &MergeOptions| {
        with_call(|call| merge(&parts(dir.path()), &dir.path().join("m"), options, call))
    };
    merge(&MergeOptions::default()).unwrap();
    for allow_missing_files in [false, true] {
        let options = MergeOptions {
            allow_missing_files,
            ..MergeOptions::default()
        };
        let error = merge(&options).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(
            error.message().contains("; the checkpoint exists"),
            "{error}"
        );
    }
    assert_eq!(found(dir.path()), Ok(Found::New));
}

/// Half of the parts may be gone when a merge is killed. What is left must not become a checkpoint.
#[test]
fn the_rest_of_merged_parts_does_not_replace_the_checkpoint() {
    let dir = CASES[0].set_up();
    let keep = MergeOptions {
        keep_parts: true,
        ..MergeOptions::default()
    };
    let prefix = dir.path().join("m");
    with_call(|call| merge(&parts(dir.path()), &prefix, &keep, call)).unwrap();
    std::fs::remove_file(dir.path().join("p0.index")).unwrap();
    let allow = MergeOptions {
        allow_missing_files: true,
        ..MergeOptions::default()
    };
    with_call(|call| merge(&parts(dir.path()), &prefix, &allow, call)).unwrap();
    assert_eq!(found(dir.path()), Ok(Found::New));
    let names = Disk::read(dir.path()).names();
    assert!(names.iter().all(|name| name.starts_with('m')), "{names:?}");
}

/// Not one descriptor for each part: a process may have no more than 1024.
#[test]
fn a_thousand_parts_take_few_descriptors() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let prefix = dir.path().join("m");
    let saved: Vec<PathBuf> = (0..1000u32)
        .map(|shard| {
            let key = shard.to_string();
            with_tensors(&[(&key, "", &[1.0])], |tensors| {
                with_call(|call| save_shard(&prefix, shard, 1000, None, tensors, &QUICK, call))
            })
            .unwrap()
        })
        .collect();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let most = std::cell::Cell::new(0);
    let context = Context::new(ContextOptions::default()).unwrap();
    let mut call = Call::new(&context);
    call.progress = crate::transfer::Progress::new(Some(Box::new(|_| {
        most.set(open().max(most.get()));
        true
    })));
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    merge(&saved, &prefix, &options, &mut call).unwrap();
    drop(call);
    // Other tests run at the same time.
    assert!(
        most.get() > 0 && most.get() < before + 500,
        "{before} {}",
        most.get()
    );
}

#[test]
fn parts_on_another_file_system_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    // Memory, while the other folder is on a disk, as a rule.
    let elsewhere = CASES[0].set_up();
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    let prefix = dir.path().join("m");
    with_call(|call| merge(&parts(elsewhere.path()), &prefix, &options, call)).unwrap();
    assert_eq!(found(dir.path()), Ok(Found::New));
    assert!(!elsewhere.path().exists());
}

/// Indexes with every kind of damage are refused or merged, and stay as they are if refused.
#[test]
fn no_damage_of_a_part_does_harm() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-errors");
    let mut refused = 0;
    let mut merged = 0;
    for case in std::fs::read_dir(golden).unwrap() {
        let case = case.unwrap().path();
        if !case.join("m.index").exists() {
            continue;
        }
        let dir = CASES[1].set_up();
        for suffix in [".index", ".data-00000-of-00001"] {
            let to = dir.path().join(format!("p1{suffix}"));
            std::fs::remove_file(&to).unwrap();
            if let Ok(bytes) = std::fs::read(case.join(format!("m{suffix}"))) {
                std::fs::write(to, bytes).unwrap();
            }
        }
        let before = Disk::read(dir.path());
        match CASES[1].merge(dir.path(), false) {
            Ok(()) => {
                merged += 1;
                assert!(Reader::open(&dir.path().join("m")).is_ok(), "{case:?}");
            }
            Err(_) => {
                refused += 1;
                assert_eq!(
                    Disk::read(dir.path()).contents(),
                    before.contents(),
                    "{case:?}"
                );
            }
        }
    }
    assert!(
        refused > 30 && merged > 5,
        "{refused} refused, {merged} merged"
    );
}
