//! Every state that a power cut may leave.

use super::*;

/// Checks a state that a power cut left, and that the next save gets along with it. `is_last`: after
/// the save had returned.
fn check_crash_state(case: &Case, state: &Disk, is_last: bool) -> std::result::Result<(), String> {
    let dir = scratch();
    state.make(dir.path());
    let found = case.check(dir.path())?;
    case.check_sidecar(dir.path())?;
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
        "overwrite with a sidecar, one there",
        "overwrite without a sidecar, one there",
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
