//! What a saver promises of the files, tried with faults of the file system.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::checkpoint::{
    Format, LatestOptions, RestoreData, RestoreOptions, SaveData, latest_checkpoint,
};
use crate::dtype::DType;
use crate::error::Code;
use crate::io::fault::{Disk, Plan, Watch, crash_states};
use crate::shape::Shape;
use crate::transfer::{Call, Context, ContextOptions};

fn variable(device_name: &str, key: &str) -> Variable {
    Variable {
        key: key.into(),
        variable_name: Vec::new(),
        dtype: DType::Uint8,
        shape: Some(Shape::new([4]).unwrap()),
        slice_spec: String::new(),
        device_name: device_name.to_owned(),
    }
}

/// Two variables on two devices.
fn saver(options: SaverOptions) -> Saver {
    let variables = [variable("/cpu:1", "a"), variable("/cpu:0", "b")];
    Saver::new(variables.map(Saveable::from).into(), options).unwrap()
}

fn keeping(max_to_keep: i64) -> SaverOptions {
    SaverOptions {
        max_to_keep,
        save_relative_paths: true,
        ..SaverOptions::default()
    }
}

/// Saves the step as the value of both variables.
fn save_to(saver: &mut Saver, path: &Path, step: u8, no_sync: bool) -> Result<PathBuf> {
    let value = [step; 4];
    let shape = Shape::new([4]).unwrap();
    let values = (0..2).map(|_| SaveValue {
        shape: shape.clone(),
        data: SaveData::Bytes(value.as_slice().into()),
    });
    let options = SaverSaveOptions {
        global_step: Some(step.into()),
        no_sync,
        ..SaverSaveOptions::default()
    };
    let context = Context::new(ContextOptions::default()).unwrap();
    let saved = saver.save(path, values.collect(), &options, &mut Call::new(&context))?;
    Ok(saved.unwrap())
}

fn save(saver: &mut Saver, dir: &TempDir, step: u8) -> Result<PathBuf> {
    save_to(saver, &dir.path().join("m"), step, false)
}

/// The value of both variables in the latest checkpoint.
fn latest(dir: &Path) -> Result<u8> {
    let prefix = latest_checkpoint(dir, LatestOptions::default())?.prefix;
    restore(&saver(keeping(1)), &prefix)
}

fn restore(saver: &Saver, prefix: &Path) -> Result<u8> {
    let (mut a, mut b) = ([0; 4], [0; 4]);
    let context = Context::new(ContextOptions::default()).unwrap();
    let data = vec![
        RestoreData::Bytes(a.as_mut_slice().into()),
        RestoreData::Bytes(b.as_mut_slice().into()),
    ];
    saver.restore(
        prefix,
        &RestoreOptions::default(),
        |_, _| Ok(data),
        &mut Call::new(&context),
    )?;
    assert_eq!(a, [a[0]; 4]);
    assert_eq!(a, b);
    Ok(a[0])
}

fn names(dir: &TempDir) -> Vec<String> {
    Disk::read(dir.path()).names().into_iter().collect()
}

const KINDS: [bool; 2] = [false, true];

/// A folder with one checkpoint, and the saver that saved it and keeps no more than that.
fn one_saved(sharded: bool) -> (TempDir, Saver) {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = saver(SaverOptions {
        sharded,
        ..keeping(1)
    });
    save(&mut saver, &dir, 1).unwrap();
    (dir, saver)
}

#[test]
fn a_power_cut_never_finds_the_old_checkpoint_gone_and_the_new_one_missing() {
    for sharded in KINDS {
        let (dir, mut saver) = one_saved(sharded);
        let before = Disk::read(dir.path());
        let watch = Watch::on(dir.path(), Plan::default());
        save(&mut saver, &dir, 2).unwrap();
        let log = watch.log();
        drop(watch);
        let mut found = std::collections::BTreeSet::new();
        for state in crash_states(dir.path(), &before, &|_| false, &log, 0) {
            let rebuilt = tempfile::tempdir().unwrap();
            state.make(rebuilt.path());
            found.insert(latest(rebuilt.path()).unwrap());
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [1, 2]);
        let last = crash_states(dir.path(), &before, &|_| false, &log, log.len());
        for state in last {
            let rebuilt = tempfile::tempdir().unwrap();
            state.make(rebuilt.path());
            assert_eq!(latest(rebuilt.path()).unwrap(), 2);
        }
    }
}

#[test]
fn a_process_killed_anywhere_leaves_a_checkpoint_that_its_state_file_names() {
    for sharded in KINDS {
        for at in 0.. {
            let (dir, mut saver) = one_saved(sharded);
            let watch = Watch::on(
                dir.path(),
                Plan {
                    kill: Some(at),
                    ..Plan::default()
                },
            );
            let _ = save(&mut saver, &dir, 2);
            let finished = watch.count() <= at;
            drop(watch);
            let found = latest(dir.path()).unwrap();
            assert!(found == 1 || found == 2, "operation {at}");
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_save_that_fails_records_nothing_and_deletes_nothing() {
    for sharded in KINDS {
        for at in 0.. {
            let (dir, mut saver) = one_saved(sharded);
            let before = (names(&dir), saver.last_checkpoints().to_vec());
            let plan = Plan {
                fail: Some((at, libc::ENOSPC)),
                ..Plan::default()
            };
            let watch = Watch::on(dir.path(), plan);
            let saved = save(&mut saver, &dir, 2);
            let finished = watch.count() <= at;
            drop(watch);
            if saved.is_err() {
                assert_eq!(
                    (names(&dir), saver.last_checkpoints().to_vec()),
                    before,
                    "operation {at}"
                );
                assert_eq!(latest(dir.path()).unwrap(), 1);
            } else {
                assert_eq!(latest(dir.path()).unwrap(), 2);
            }
            if finished {
                break;
            }
        }
    }
}

#[test]
fn the_new_checkpoint_is_not_deleted_under_another_spelling() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    let mut saver = saver(keeping(1));
    for spelling in ["m", "./m", "sub/../m", "link/m", ".//m"] {
        let prefix = save_to(&mut saver, &dir.path().join(spelling), 1, true).unwrap();
        assert_eq!(restore(&saver, &prefix).unwrap(), 1, "{spelling}");
        assert_eq!(saver.last_checkpoints().len(), 1);
    }
}

#[test]
fn a_double_slash_does_not_keep_data_files_from_being_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = saver(keeping(1));
    let path = PathBuf::from(format!("{}//m", dir.path().display()));
    for step in 1..4 {
        save_to(&mut saver, &path, step, true).unwrap();
    }
    assert_eq!(
        names(&dir),
        ["checkpoint", "m-3.data-00000-of-00001", "m-3.index"]
    );
}

#[test]
fn a_list_that_is_too_long_shrinks_at_once_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = saver(keeping(5));
    let paths: Vec<PathBuf> = (1..5)
        .map(|step| save(&mut first, &dir, step).unwrap())
        .collect();
    let mut second = saver(SaverOptions {
        shrink_to_max_to_keep: true,
        ..keeping(2)
    });
    second.recover_last_checkpoints(paths).unwrap();
    save(&mut second, &dir, 5).unwrap();
    let left = names(&dir)
        .into_iter()
        .filter(|name| name.ends_with(".index"));
    assert_eq!(left.collect::<Vec<_>>(), ["m-4.index", "m-5.index"]);
}

#[test]
fn recovering_drops_what_is_gone_and_takes_the_times_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = saver(keeping(5));
    let path = save(&mut saver, &dir, 1).unwrap();
    let gone = dir.path().join("m-0");
    saver
        .recover_last_checkpoints(vec![gone, path.clone()])
        .unwrap();
    let [(found, time)] = &saver.last_checkpoints()[..] else {
        panic!("{:?}", saver.last_checkpoints());
    };
    assert_eq!(*found, path);
    assert!(*time > 1.7e9 && time.fract() == 0.0);
}

#[test]
fn a_table_that_grew_is_restored_in_its_stored_size() {
    let dir = tempfile::tempdir().unwrap();
    let growing = Variable {
        shape: None,
        ..variable("", "table")
    };
    let mut saver = Saver::new(vec![growing.into()], keeping(5)).unwrap();
    let value = [1u8, 2, 3];
    let values = vec![SaveValue {
        shape: Shape::new([3]).unwrap(),
        data: SaveData::Bytes(value.as_slice().into()),
    }];
    let context = Context::new(ContextOptions::default()).unwrap();
    let mut call = Call::new(&context);
    let path = dir.path().join("m");
    saver
        .save(&path, values, &SaverSaveOptions::default(), &mut call)
        .unwrap();
    let mut restored = [0; 3];
    let data = vec![RestoreData::Bytes(restored.as_mut_slice().into())];
    let destinations = |shapes: &[Shape], _: &mut Call<'_>| {
        assert_eq!(shapes, [Shape::new([3]).unwrap()]);
        Ok(data)
    };
    saver
        .restore(&path, &RestoreOptions::default(), destinations, &mut call)
        .unwrap();
    assert_eq!(restored, value);
}

#[test]
fn nothing_is_restored_if_one_name_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut of_two = saver(keeping(5));
    let path = save(&mut of_two, &dir, 1).unwrap();
    let variables = vec![variable("", "a").into(), variable("", "c").into()];
    let of_another = Saver::new(variables, keeping(5)).unwrap();
    let context = Context::new(ContextOptions::default()).unwrap();
    let asked = |_: &[Shape], _: &mut Call<'_>| -> Result<Vec<RestoreData<'_>>> {
        panic!("not before all are found")
    };
    let error = of_another
        .restore(
            &path,
            &RestoreOptions::default(),
            asked,
            &mut Call::new(&context),
        )
        .unwrap_err();
    assert_eq!(
        (error.code(), error.tensor_index()),
        (Code::NotFound, Some(1))
    );
    assert!(
        error
            .message()
            .ends_with("Original error:\n\nKey c not found in checkpoint")
    );
    let error = restore(&of_two, &dir.path().join("gone")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        of_two.built.unwrap().saver_def.is_v1,
        Format::default() == Format::V1
    );
}
