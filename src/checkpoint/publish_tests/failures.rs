//! Saves that fail, are cancelled, killed, or race.

use super::*;

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
            assert_eq!(case.check_sidecar(dir.path()), Ok(()), "{}", case.name);
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
                    .and_then(|_| case.check_sidecar(dir.path()))
                    .and_then(|()| check_next_save(&case, dir.path(), sync));
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
