//! Names of V1, prefixes that end in a slash, and left-over copies.

use super::*;

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
