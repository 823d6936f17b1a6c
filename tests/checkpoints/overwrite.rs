//! Saving to a prefix that has a checkpoint already, also while somebody reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tfckpt::{
    Call, Code, DType, Format, LatestOptions, Reader, RemoveOptions, SaveOptions, Verify,
    checkpoint_exists, get_checkpoint_state, latest_checkpoint, remove_checkpoint,
};

use super::support::{
    Item, Request, Value, context, quick, restore, restore_one, save, temp_dir, verify,
};

/// Tensors that all say which save they are of, one per device.
fn generation(number: u8, num_shards: usize) -> Vec<Item> {
    (0..6)
        .map(|i| {
            let value = Value::Bytes(vec![number; 3000]);
            let mut item = Item::new(&format!("t{i}"), DType::Uint8, &[3000], value);
            item.device = format!("/device:CPU:{}", i % num_shards);
            item
        })
        .collect()
}

fn sharded() -> SaveOptions {
    SaveOptions {
        shard_by_device: true,
        ..quick()
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(dir).unwrap();
    names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn saving_over_a_checkpoint_replaces_it_with_any_number_of_shards() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(2);
    for (number, num_shards) in [1, 3, 2, 2, 1, 1, 3].into_iter().enumerate() {
        let items = generation(number as u8, num_shards);
        save(&prefix, &items, &sharded(), &mut Call::new(&context)).unwrap();
        let reader = Reader::open(&prefix).unwrap();
        assert_eq!(reader.num_shards() as usize, num_shards);
        let requests: Vec<Request> = items.iter().map(Item::request).collect();
        let restored = restore(&reader, &requests, Verify::Full, false, &context).unwrap();
        for (value, item) in restored.complete().unwrap().into_iter().zip(&items) {
            assert_eq!(value, item.value);
        }
        assert!(verify(&reader, &context).unwrap().is_empty());
        for name in names(dir.path()) {
            assert!(
                !name.contains(".prev") && !name.contains(".tmp"),
                "{name} is left over"
            );
        }
    }
    // As TensorFlow leaves them: the files of other counts stay.
    let files = names(dir.path());
    assert!(files.contains("m.data-00001-of-00002") && files.contains("m.data-00002-of-00003"));
    remove_checkpoint(&prefix, &RemoveOptions::default()).unwrap();
    assert!(!checkpoint_exists(&prefix).unwrap());
    assert_eq!(names(dir.path()), BTreeSet::new());
}

#[test]
fn what_was_open_before_stays_readable_or_says_that_it_was_replaced() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(1);
    let old = generation(1, 3);
    save(&prefix, &old, &sharded(), &mut Call::new(&context)).unwrap();
    let reader = Reader::open(&prefix).unwrap();
    for num_shards in [3, 1] {
        let new = generation(2, num_shards);
        save(&prefix, &new, &sharded(), &mut Call::new(&context)).unwrap();
        let requests: Vec<Request> = old.iter().map(Item::request).collect();
        let restored = restore(&reader, &requests, Verify::Full, false, &context).unwrap();
        match restored.complete() {
            Ok(values) => {
                for (value, item) in values.iter().zip(&old) {
                    assert_eq!(*value, item.value);
                }
            }
            Err(error) => assert_eq!(error.code(), Code::Aborted, "{error}"),
        }
    }
}

#[test]
fn updating_the_state_keeps_the_entries_that_still_exist() {
    let dir = temp_dir();
    let prefix = dir.path().join("model.ckpt");
    let context = context(1);
    let step = |step| SaveOptions {
        global_step: Some(step),
        update_state: true,
        ..quick()
    };
    let mut paths = Vec::new();
    for number in [5, 6, 7] {
        let items = generation(number as u8, 1);
        let saved = save(&prefix, &items, &step(number), &mut Call::new(&context)).unwrap();
        paths.push(saved.display().to_string());
        let state = get_checkpoint_state(dir.path(), None).unwrap().unwrap();
        assert_eq!(state.model_checkpoint_path, *paths.last().unwrap());
        assert_eq!(state.all_model_checkpoint_paths, paths);
    }
    // A save without the option leaves the file alone.
    let before = std::fs::read(dir.path().join("checkpoint")).unwrap();
    save(
        &prefix,
        &generation(8, 1),
        &quick(),
        &mut Call::new(&context),
    )
    .unwrap();
    assert_eq!(
        std::fs::read(dir.path().join("checkpoint")).unwrap(),
        before
    );

    remove_checkpoint(Path::new(&paths[1]), &RemoveOptions::default()).unwrap();
    // Again number 5: it moves to the end, and what is gone leaves the list.
    save(
        &prefix,
        &generation(9, 1),
        &step(5),
        &mut Call::new(&context),
    )
    .unwrap();
    let state = get_checkpoint_state(dir.path(), None).unwrap().unwrap();
    assert_eq!(state.all_model_checkpoint_paths, [&paths[2][..], &paths[0]]);
    let latest = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap();
    assert_eq!(latest.prefix.display().to_string(), paths[0]);

    // Without its index the latest one is incomplete.
    std::fs::remove_file(format!("{}.index", paths[0])).unwrap();
    let error = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    let options = LatestOptions {
        fall_back: true,
        ..LatestOptions::default()
    };
    let latest = latest_checkpoint(dir.path(), options).unwrap();
    assert_eq!(latest.prefix.display().to_string(), paths[2]);
    assert_eq!(latest.fell_back.unwrap().code(), Code::DataLoss);
}

#[test]
fn a_moved_folder_is_found_by_relative_paths_and_by_rebasing() {
    let dir = temp_dir();
    let context = context(1);
    for (relative, rebase, found) in [
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let options = SaveOptions {
            update_state: true,
            save_relative_paths: relative,
            ..quick()
        };
        save(
            &from.join("m"),
            &generation(1, 1),
            &options,
            &mut Call::new(&context),
        )
        .unwrap();
        std::fs::rename(&from, &to).unwrap();
        let options = LatestOptions {
            rebase,
            ..LatestOptions::default()
        };
        let latest = latest_checkpoint(&to, options);
        assert_eq!(
            latest.is_ok(),
            found,
            "relative={relative} rebase={rebase} {latest:?}"
        );
        if let Ok(latest) = latest {
            assert_eq!(latest.prefix, to.join("m"));
        }
        std::fs::remove_dir_all(&to).unwrap();
    }
}

/// What a reader sees while a writer overwrites: one of the generations, whole.
fn read_while_writing(shard_counts: &'static [usize], state: bool) {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let options = SaveOptions {
        update_state: state,
        ..sharded()
    };
    let first = generation(0, shard_counts[0]);
    save(&prefix, &first, &options, &mut Call::new(&context(1))).unwrap();
    let done = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_millis(900);
    let (seen, errors) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let context = context(1);
                    let mut seen = BTreeSet::new();
                    let mut errors: BTreeMap<&str, (u32, String)> = BTreeMap::new();
                    while !done.load(Ordering::Relaxed) {
                        match read_once(dir.path(), &prefix, state, &context) {
                            Ok(number) => {
                                seen.insert(number);
                            }
                            Err(error) => {
                                let first = || (0, error.to_string());
                                errors.entry(error.code().name()).or_insert_with(first).0 += 1;
                            }
                        }
                    }
                    (seen, errors)
                })
            })
            .collect();
        let context = context(1);
        let mut number = 0u8;
        let mut failed = None;
        while Instant::now() < deadline && failed.is_none() {
            number = number.wrapping_add(1);
            let num_shards = shard_counts[usize::from(number) % shard_counts.len()];
            let items = generation(number, num_shards);
            failed = save(&prefix, &items, &options, &mut Call::new(&context)).err();
        }
        // The readers must end also when the writer failed.
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
        let mut all = (BTreeSet::new(), Vec::new());
        for reader in readers {
            let (seen, errors) = reader.join().unwrap();
            all.0.extend(seen);
            all.1.extend(errors);
        }
        all
    });
    let num_seen = seen.len();
    assert!(num_seen > 3, "{num_seen} saves seen, {errors:#?}");
    // Of each code, how often, and the first text.
    let lost: Vec<_> = errors
        .iter()
        .filter(|(code, _)| *code != "ABORTED")
        .collect();
    assert!(lost.is_empty(), "{num_seen} saves seen, but {lost:#?}");
}

fn read_once(
    dir: &Path,
    prefix: &Path,
    state: bool,
    context: &tfckpt::Context,
) -> tfckpt::Result<u8> {
    let found;
    let prefix = if state {
        found = latest_checkpoint(dir, LatestOptions::default())?.prefix;
        assert_eq!(found, prefix);
        &found
    } else {
        prefix
    };
    let reader = Reader::open(prefix)?;
    let requests: Vec<Request> = generation(0, 1).iter().map(Item::request).collect();
    let values = restore(&reader, &requests, Verify::Full, false, context)?.complete()?;
    let numbers: BTreeSet<u8> = values
        .into_iter()
        .flat_map(|value| match value {
            Value::Bytes(bytes) => bytes,
            Value::Strings(_) => panic!("not bytes"),
        })
        .collect();
    assert_eq!(numbers.len(), 1, "a mixture of saves");
    Ok(numbers.into_iter().next().unwrap())
}

#[test]
fn readers_see_one_save_or_the_other_while_a_writer_overwrites() {
    read_while_writing(&[2], false);
}

#[test]
fn readers_see_one_save_or_the_other_while_the_number_of_shards_changes() {
    read_while_writing(&[1, 3, 2], false);
}

#[test]
fn the_latest_checkpoint_is_complete_at_every_moment_of_an_overwriting_save() {
    read_while_writing(&[1, 2], true);
}

/// Whose files' names just fit. Overwriting needs room for the longer names of what is kept meanwhile.
#[test]
fn a_name_is_as_long_as_its_files_can_be() {
    for (format, longest, refused) in [(Format::V2, 235, 236), (Format::V1, 255, 256)] {
        let dir = temp_dir();
        let context = context(1);
        let items = [Item::floats("a", &[2], &[1.0, 2.0])];
        let options = SaveOptions {
            format,
            global_step: Some(12),
            update_state: true,
            ..quick()
        };
        let save = |len: usize, value: f32| {
            let prefix = dir.path().join("n".repeat(len - "-12".len()));
            let items = [Item::floats("a", &[2], &[value, 2.0])];
            save(&prefix, &items, &options, &mut Call::new(&context))
        };
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|file| file.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        let error = save(refused, 1.0).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(names().is_empty());
        let saved = save(longest, 1.0).unwrap();
        let before = names();
        let files = if format == Format::V2 { 3 } else { 2 };
        assert_eq!(before.len(), files, "{before:?}");
        let error = save(longest, 3.0).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert_eq!(names(), before);
        let reader = Reader::open(&saved).unwrap();
        let value = restore_one(&reader, &items[0].request(), Verify::Full, &context).unwrap();
        assert_eq!(value, items[0].value);
        // Names that are long and leave this room.
        for value in [4.0, 5.0] {
            save(longest - 22, value).unwrap();
        }
    }
}
