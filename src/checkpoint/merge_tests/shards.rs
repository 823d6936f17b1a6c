//! Parts that processes save on their own.

use super::*;

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
