//! Every fault that the file system may have.

use super::*;

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
        if case.sidecars {
            names.insert(1, "m.crc32c");
        }
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
