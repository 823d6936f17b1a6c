//! What a saver promises of its jobs: order, errors, and that it outlives them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::{
    Format, Job, JobOptions, LatestOptions, Reader, RestoreData, RestoreFrom, RestoreOptions,
    RestoreTensor, SaveData, Snapshot, latest_checkpoint, restore_async,
};
use crate::dtype::DType;
use crate::error::Code;
use crate::io::fault::{Disk, Plan, Watch};
use crate::memory::keep;
use crate::shape::Shape;
use crate::transfer::{Call, Context, ContextOptions};

const SIZE: usize = 4_500_000;

fn saver(options: SaverOptions) -> Saver {
    let variable = Variable {
        key: b"a".to_vec(),
        variable_name: Vec::new(),
        dtype: DType::Uint8,
        shape: Some(shape()),
        slice_spec: String::new(),
        device_name: String::new(),
    };
    Saver::new(vec![variable.into()], options).unwrap()
}

fn keeping(max_to_keep: i64) -> Saver {
    saver(SaverOptions {
        max_to_keep,
        ..SaverOptions::default()
    })
}

fn shape() -> Shape {
    Shape::new([i64::try_from(SIZE).unwrap()]).unwrap()
}

/// The variable full of the step.
fn values(step: u8) -> Vec<SaveValue<'static>> {
    let bytes: &'static [u8] = keep(vec![step; SIZE].into_boxed_slice());
    vec![SaveValue {
        shape: shape(),
        data: SaveData::Bytes(bytes.into()),
    }]
}

fn context(max_host_bytes: u64) -> Arc<Context> {
    Arc::new(
        Context::new(ContextOptions {
            max_host_bytes,
            num_threads: 2,
        })
        .unwrap(),
    )
}

fn at(step: u8) -> SaverSaveOptions<'static> {
    SaverSaveOptions {
        global_step: Some(step.into()),
        ..SaverSaveOptions::default()
    }
}

/// Saves the step in the background.
fn start(
    saver: &mut Saver,
    dir: &TempDir,
    step: u8,
    snapshot: Snapshot,
    job: JobOptions,
) -> Result<Job> {
    saver.save_async(
        &dir.path().join("m"),
        values(step),
        &at(step),
        snapshot,
        job,
    )
}

fn save(saver: &mut Saver, dir: &TempDir, step: u8) -> Result<Option<PathBuf>> {
    let context = context(0);
    let mut call = Call::new(&context);
    saver.save(&dir.path().join("m"), values(step), &at(step), &mut call)
}

/// A job that begins only when the sender is dropped.
fn held() -> (JobOptions, SyncSender<()>) {
    let (sender, receiver): (_, Receiver<()>) = sync_channel(0);
    let job = JobOptions {
        progress: Some(Box::new(move |_| {
            let _ = receiver.recv();
            true
        })),
        ..JobOptions::new(context(0))
    };
    (job, sender)
}

fn plain() -> JobOptions {
    JobOptions::new(context(0))
}

fn restored(prefix: &Path) -> u8 {
    let mut bytes = vec![0; SIZE];
    let data = vec![RestoreData::Bytes(bytes.as_mut_slice().into())];
    let context = context(0);
    let options = RestoreOptions::default();
    let mut call = Call::new(&context);
    let restored = keeping(1).restore(prefix, &options, |_, _| Ok(data), &mut call);
    restored.unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

fn steps(saver: &Saver) -> Vec<String> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    saver
        .last_checkpoints()
        .iter()
        .map(|(path, _)| name(path))
        .collect()
}

fn latest(dir: &TempDir) -> Result<u8> {
    let latest = latest_checkpoint(dir.path(), LatestOptions::default())?;
    Ok(restored(&latest.prefix))
}

#[test]
fn jobs_of_a_saver_write_in_the_order_in_which_they_were_started() {
    for format in [Format::V2, Format::V1] {
        let dir = tempfile::tempdir().unwrap();
        let mut saver = saver(SaverOptions {
            max_to_keep: 2,
            write_version: format,
            ..SaverOptions::default()
        });
        let (job, hold) = held();
        let first = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
        let second = start(&mut saver, &dir, 2, Snapshot::Borrowed, plain()).unwrap();
        // Waiting for its turn, a job has not touched anything.
        assert!(second.wait(Some(Duration::from_millis(30))).is_none());
        assert!(!second.wait_snapshot(Some(Duration::ZERO)));
        assert_eq!(latest(&dir).unwrap_err().code(), Code::NotFound);
        assert!(steps(&saver).is_empty());
        let third = start(&mut saver, &dir, 3, Snapshot::Borrowed, plain()).unwrap();
        drop(hold);
        third.wait(None).unwrap().unwrap();
        assert!(first.is_done() && second.is_done());
        assert_eq!(steps(&saver), ["m-2", "m-3"]);
        assert_eq!(latest(&dir).unwrap(), 3);
        assert_eq!(restored(&dir.path().join("m-2")), 2);
    }
}

#[test]
fn a_copy_that_fits_the_budget_is_made_while_other_jobs_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let (job, hold) = held();
    let first = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
    // As the header says: the tensors, 2 MiB for the data file and each thread, and 1 MiB.
    let enough = context(SIZE as u64 + 3 * (2 << 20) + (1 << 20));
    let second = start(
        &mut saver,
        &dir,
        2,
        Snapshot::Copied,
        JobOptions::new(enough),
    )
    .unwrap();
    assert!(second.wait_snapshot(Some(Duration::ZERO)));
    assert!(!first.is_done() && !second.is_done());
    drop(hold);
    second.wait(None).unwrap().unwrap();
    assert_eq!(steps(&saver), ["m-1", "m-2"]);
    assert_eq!(latest(&dir).unwrap(), 2);
}

#[test]
fn a_save_that_is_no_job_waits_for_the_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let (job, hold) = held();
    let job = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| save(&mut saver, &dir, 2));
        drop(hold);
        saving.join().unwrap().unwrap();
    });
    assert!(job.is_done());
    assert_eq!(steps(&saver), ["m-1", "m-2"]);
    assert_eq!(latest(&dir).unwrap(), 2);
}

#[test]
fn a_save_that_waits_for_jobs_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let (job, hold) = held();
    let _job = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
    let context = context(0);
    let mut call = Call::new(&context);
    call.progress = crate::transfer::Progress::new(Some(Box::new(|_| false)));
    let saved = saver.save(&dir.path().join("m"), values(2), &at(2), &mut call);
    assert_eq!(saved.unwrap_err().code(), Code::Cancelled);
    drop(hold);
}

#[test]
fn an_error_that_nobody_fetched_is_returned_by_the_next_save_which_writes_nothing() {
    for next_is_async in [false, true] {
        for is_fetched in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut saver = keeping(5);
            save(&mut saver, &dir, 1).unwrap();
            let before = Disk::read(dir.path());
            let watch = Watch::on(
                dir.path(),
                Plan {
                    fail: Some((2, libc::ENOSPC)),
                    ..Plan::default()
                },
            );
            let job = start(&mut saver, &dir, 2, Snapshot::Copied, plain()).unwrap();
            while !job.is_done() {
                std::thread::yield_now();
            }
            drop(watch);
            if is_fetched {
                let error = job.wait(None).unwrap().unwrap_err();
                assert_eq!(error.code(), Code::ResourceExhausted);
            }
            drop(job);
            let mut again = |step| match next_is_async {
                true => {
                    let job = start(&mut saver, &dir, step, Snapshot::Copied, plain())?;
                    job.wait(None).unwrap()
                }
                false => save(&mut saver, &dir, step).map(|_| ()),
            };
            if !is_fetched {
                let error = again(3).unwrap_err();
                assert_eq!(error.code(), Code::ResourceExhausted);
                let text = "; nothing was saved by this call: call again";
                assert!(error.message().ends_with(text), "{error}");
                assert!(error.message().contains("No space left"), "{error}");
                assert_eq!(Disk::read(dir.path()), before);
            }
            again(4).unwrap();
            assert_eq!(steps(&saver), ["m-1", "m-4"]);
        }
    }
}

#[test]
fn jobs_that_were_told_to_stop_are_nobodys_surprise() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let (job, hold) = held();
    let first = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
    let second = start(&mut saver, &dir, 2, Snapshot::Borrowed, plain()).unwrap();
    saver.cancel();
    // One that waits for its turn need not wait for that.
    let error = second.wait(None).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
    drop(hold);
    drop((first, second));
    assert!(Disk::read(dir.path()).names().is_empty());
    save(&mut saver, &dir, 3).unwrap();
    assert_eq!(steps(&saver), ["m-3"]);
}

#[test]
fn a_job_that_fails_does_not_stop_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(1);
    let (job, hold) = held();
    let first = start(&mut saver, &dir, 1, Snapshot::Borrowed, job).unwrap();
    let second = start(&mut saver, &dir, 2, Snapshot::Borrowed, plain()).unwrap();
    first.cancel();
    drop(hold);
    second.wait(None).unwrap().unwrap();
    assert!(first.wait(None).unwrap().is_err());
    assert_eq!(steps(&saver), ["m-2"]);
}

#[test]
fn dropping_a_saver_waits_for_its_jobs_whose_handles_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let job = start(&mut saver, &dir, 1, Snapshot::Borrowed, plain()).unwrap();
    drop(saver);
    assert!(job.is_done());
    job.wait(None).unwrap().unwrap();
    assert_eq!(latest(&dir).unwrap(), 1);
}

#[test]
fn the_list_of_checkpoints_is_replaced_after_the_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    let _job = start(&mut saver, &dir, 1, Snapshot::Borrowed, plain()).unwrap();
    saver
        .set_last_checkpoints(vec![PathBuf::from("x")])
        .unwrap();
    assert_eq!(steps(&saver), ["x"]);
}

#[test]
fn arguments_are_checked_before_a_job_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut saver = keeping(5);
    for snapshot in [Snapshot::Copied, Snapshot::Borrowed] {
        let path = dir.path().join("m");
        let error = saver.save_async(&path, Vec::new(), &at(1), snapshot, plain());
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    }
    // It was told, so nobody else is.
    save(&mut saver, &dir, 2).unwrap();
    let deferred = SaverOptions {
        defer_build: true,
        ..SaverOptions::default()
    };
    let mut unbuilt = Saver::new(Vec::new(), deferred).unwrap();
    let path = dir.path().join("m");
    let error = unbuilt.save_async(&path, Vec::new(), &at(1), Snapshot::Copied, plain());
    assert_eq!(error.unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn an_empty_saver_starts_a_job_that_saves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = SaverOptions {
        allow_empty: true,
        ..SaverOptions::default()
    };
    let mut saver = Saver::new(Vec::new(), options).unwrap();
    let path = dir.path().join("m");
    let job = saver.save_async(&path, Vec::new(), &at(1), Snapshot::Copied, plain());
    let job = job.unwrap();
    job.wait(None).unwrap().unwrap();
    assert!(job.path().is_none());
    assert!(Disk::read(dir.path()).names().is_empty());
}

/// Restores the variable in the background.
fn start_restore(prefix: &Path, shared: &Arc<Context>) -> Job {
    let bytes: &'static mut [u8] = keep(vec![0; SIZE].into_boxed_slice());
    let tensors = vec![RestoreTensor {
        key: b"a",
        dtype: DType::Uint8,
        shape: shape(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(bytes.into()),
    }];
    let from = RestoreFrom::Reader(Arc::new(Reader::open(prefix).unwrap()));
    let job = JobOptions::new(shared.clone());
    restore_async(from, tensors, &RestoreOptions::default(), job).unwrap()
}

#[test]
fn savers_that_share_a_small_budget_all_get_on() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let shared = context(2 << 20);
    std::thread::scope(|scope| {
        for (number, dir) in dirs.iter().enumerate() {
            let shared = shared.clone();
            scope.spawn(move || {
                let mut saver = saver(SaverOptions {
                    max_to_keep: 2,
                    // One of them writes V1, which is not copied.
                    write_version: if number == 1 { Format::V1 } else { Format::V2 },
                    ..SaverOptions::default()
                });
                let (mut jobs, mut restores) = (Vec::new(), Vec::new());
                for step in 1..=8 {
                    let snapshot = match (usize::from(step) + number) % 3 {
                        0 => Snapshot::Borrowed,
                        _ => Snapshot::Copied,
                    };
                    let job = JobOptions::new(shared.clone());
                    let job = start(&mut saver, dir, step, snapshot, job).unwrap();
                    if step % 4 == 0 {
                        job.cancel();
                    } else if step % 3 == 0 {
                        job.wait(None).unwrap().unwrap();
                        restores.push(start_restore(job.path().unwrap(), &shared));
                    }
                    jobs.push(job);
                }
                drop(saver);
                assert!(jobs.iter().all(Job::is_done));
                for restore in restores {
                    restore.wait_tensor(0, None).unwrap().unwrap();
                    restore.wait(None).unwrap().unwrap();
                }
            });
        }
    });
    for dir in &dirs {
        assert!(latest(dir).unwrap() >= 7);
    }
    // All of the budget has been given back.
    let mut call = Call::new(&shared);
    assert_eq!(call.admit(2, 1 << 20).unwrap().bytes(), 2 << 20);
}
