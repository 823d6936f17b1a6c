//! What is not merged, and is left alone.

use super::*;

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
