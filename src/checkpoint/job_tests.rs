//! What jobs promise, tried at every moment that can be told from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::dtype::DType;
use crate::error::Code;
use crate::io::fault::{Disk, Plan, Watch};
use crate::shape::Shape;
use crate::transfer::{Call, Context, ContextOptions};

/// Memory that outlives every test, as a job's has to outlive the job.
fn leaked(value: u8, len: usize) -> &'static mut [u8] {
    vec![value; len].leak()
}

fn tensor(key: &'static str, bytes: &'static [u8]) -> SaveTensor<'static> {
    SaveTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(bytes.len()).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: SaveData::Bytes(bytes.into()),
    }
}

fn destination(key: &'static str, bytes: &'static mut [u8]) -> RestoreTensor<'static> {
    RestoreTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(bytes.len()).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(bytes.into()),
    }
}

/// Memory that a test and a job use in turns. Raw addresses, as those of a caller in C are.
struct Shared(Vec<std::sync::atomic::AtomicU8>);

impl Shared {
    fn new(len: usize) -> Self {
        Self(std::iter::repeat_with(Default::default).take(len).collect())
    }

    fn set(&self, value: u8) {
        for byte in &self.0 {
            byte.store(value, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn is_all(&self, value: u8) -> bool {
        let mut bytes = self.0.iter();
        bytes.all(|byte| byte.load(std::sync::atomic::Ordering::Relaxed) == value)
    }
}

fn context() -> Arc<Context> {
    Arc::new(
        Context::new(ContextOptions {
            num_threads: 2,
            ..ContextOptions::default()
        })
        .unwrap(),
    )
}

/// A job whose progress callback says when it is called, and goes on when it is told to.
fn stepped() -> (JobOptions, Steps) {
    let (called, calls) = sync_channel(0);
    let (go_on, told) = sync_channel::<()>(0);
    let options = JobOptions {
        progress: Some(Box::new(move |_| {
            // The other side is gone when the test no longer cares.
            let _ = called.send(());
            let _ = told.recv();
            true
        })),
        ..JobOptions::new(context())
    };
    (options, Steps { calls, go_on })
}

struct Steps {
    calls: Receiver<()>,
    go_on: SyncSender<()>,
}

impl Steps {
    /// Waits for the next report; `false` if there are no more.
    fn next(&self) -> bool {
        self.calls.recv().is_ok()
    }

    fn go_on(&self) -> bool {
        self.go_on.send(()).is_ok()
    }
}

fn restored(prefix: &Path, key: &'static str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut tensors = [RestoreTensor {
        key: key.as_bytes(),
        dtype: DType::Uint8,
        shape: Shape::new([i64::try_from(len).unwrap()]).unwrap(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(bytes.as_mut_slice().into()),
    }];
    let context = context();
    let reader = Reader::open(prefix).unwrap();
    let options = RestoreOptions::default();
    let outcome = reader.restore(&mut tensors, &options, &mut Call::new(&context));
    outcome.unwrap().into_result().unwrap();
    bytes
}

fn in_dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("m");
    (dir, prefix)
}

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn a_borrowed_save_returns_at_once_and_says_when_tensors_may_change() {
    for format in [Format::V2, Format::V1] {
        let (_dir, prefix) = in_dir();
        let options = SaveOptions {
            format,
            ..SaveOptions::default()
        };
        let (job, steps) = stepped();
        let tensors = vec![tensor("a", leaked(7, 1000))];
        let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
        // The first report comes before anything is written.
        assert!(steps.next());
        assert!(!job.is_done());
        assert!(!job.wait_snapshot(NOW));
        assert!(job.wait(NOW).is_none());
        assert_eq!(job.progress().bytes_total, 1000);
        assert!(job.stats().is_none() && job.path().is_none());
        assert!(steps.go_on());
        // The next one when all has been copied.
        assert!(steps.next());
        assert!(job.wait_snapshot(NOW));
        assert!(!job.is_done());
        drop(steps);
        job.wait(None).unwrap().unwrap();
        assert!(job.is_done());
        assert_eq!(job.path(), Some(prefix.as_path()));
        assert_eq!(job.stats().unwrap().bytes, 1000);
        assert_eq!(restored(&prefix, "a", 1000), vec![7; 1000]);
    }
}

#[test]
fn tensors_may_change_as_soon_as_a_copying_save_returns() {
    for format in [Format::V2, Format::V1] {
        let (_dir, prefix) = in_dir();
        let options = SaveOptions {
            format,
            ..SaveOptions::default()
        };
        let memory: &'static Shared = Box::leak(Box::new(Shared::new(5 << 20)));
        memory.set(1);
        let tensors = vec![SaveTensor {
            shape: Shape::new([5 << 20]).unwrap(),
            data: SaveData::Bytes(memory.0.as_slice().into()),
            ..tensor("a", &[])
        }];
        let job = JobOptions::new(context());
        let job = save_async(&prefix, tensors, &options, Snapshot::Copied, job).unwrap();
        memory.set(2);
        assert!(job.wait_snapshot(NOW));
        job.wait(None).unwrap().unwrap();
        assert!(
            restored(&prefix, "a", 5 << 20)
                .iter()
                .all(|&byte| byte == 1)
        );
    }
}

#[test]
fn arguments_that_do_not_fit_start_no_job() {
    let (dir, prefix) = in_dir();
    let twice = || vec![tensor("a", leaked(1, 4)), tensor("a", leaked(2, 4))];
    for snapshot in [Snapshot::Copied, Snapshot::Borrowed] {
        let job = JobOptions::new(context());
        let error = save_async(&prefix, twice(), &SaveOptions::default(), snapshot, job);
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
        let job = JobOptions {
            max_host_bytes: 1,
            ..JobOptions::new(context())
        };
        let one = vec![tensor("a", leaked(1, 4))];
        let error = save_async(&prefix, one, &SaveOptions::default(), snapshot, job).unwrap_err();
        assert!(error.message().contains("minimum"), "{error}");
    }
    assert!(Disk::read(dir.path()).names().is_empty());
}

#[test]
fn a_save_that_is_cancelled_at_any_moment_leaves_what_was_there() {
    let (dir, prefix) = in_dir();
    let first = vec![tensor("a", leaked(1, 3 << 20))];
    let job = JobOptions::new(context());
    let options = SaveOptions::default();
    let job = save_async(&prefix, first, &options, Snapshot::Copied, job).unwrap();
    job.wait(None).unwrap().unwrap();
    let before = Disk::read(dir.path());
    let mut num_cancelled = 0;
    loop {
        let (job, steps) = stepped();
        let tensors = vec![tensor("a", leaked(2, 3 << 20))];
        let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
        // How often a save reports depends on its time, too.
        let passed = (0..num_cancelled).all(|_| steps.next() && steps.go_on());
        if !passed || !steps.next() {
            break;
        }
        job.cancel();
        drop(steps);
        // Every wait returns it.
        for _ in 0..2 {
            let error = job.wait(None).unwrap().unwrap_err();
            assert_eq!(error.code(), Code::Cancelled);
        }
        assert!(job.path().is_none());
        assert_eq!(Disk::read(dir.path()), before);
        num_cancelled += 1;
    }
    assert!(num_cancelled > 5, "{num_cancelled}");
    assert_eq!(restored(&prefix, "a", 3 << 20), vec![2; 3 << 20]);
}

#[test]
fn dropping_a_job_waits_for_its_end() {
    let (_dir, prefix) = in_dir();
    let tensors = vec![tensor("a", leaked(1, 3 << 20))];
    let job = JobOptions::new(context());
    let options = SaveOptions::default();
    drop(save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap());
    assert_eq!(restored(&prefix, "a", 3 << 20), vec![1; 3 << 20]);
}

#[test]
fn a_panic_on_the_jobs_thread_ends_the_job() {
    let (dir, prefix) = in_dir();
    let job = JobOptions {
        progress: Some(Box::new(|_| panic!("at the disco"))),
        ..JobOptions::new(context())
    };
    let tensors = vec![tensor("a", leaked(1, 4))];
    let options = SaveOptions::default();
    let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
    let error = job.wait(None).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("disco"), "{error}");
    assert!(job.wait_snapshot(NOW));
    assert!(Disk::read(dir.path()).names().is_empty());
}

#[test]
fn a_job_does_not_wait_for_itself() {
    let (_dir, prefix) = in_dir();
    let slot: Arc<std::sync::OnceLock<Job>> = Arc::default();
    let (sender, receiver) = sync_channel(0);
    let own = slot.clone();
    let (ready, is_ready) = sync_channel::<()>(0);
    let mut first = true;
    let job = JobOptions {
        progress: Some(Box::new(move |_| {
            if std::mem::take(&mut first) {
                let _ = is_ready.recv();
                let job = own.get().unwrap();
                let _ = sender.send((job.wait(None).is_none(), job.wait_snapshot(None)));
            }
            true
        })),
        ..JobOptions::new(context())
    };
    let tensors = vec![tensor("a", leaked(1, 4))];
    let options = SaveOptions::default();
    let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
    slot.set(job).unwrap();
    ready.send(()).unwrap();
    assert_eq!(receiver.recv().unwrap(), (true, false));
    slot.get().unwrap().wait(None).unwrap().unwrap();
}

/// Three tensors and one of strings, in a checkpoint of this format.
fn three_and_strings(prefix: &Path, format: Format) {
    let strings: &'static [u8] = b"text";
    let mut tensors: Vec<SaveTensor<'static>> = ["a", "b", "c"]
        .into_iter()
        .zip(1..)
        .map(|(key, value)| tensor(key, leaked(value, 100_000)))
        .collect();
    if format == Format::V2 {
        tensors.push(SaveTensor {
            dtype: DType::String,
            shape: Shape::new([]).unwrap(),
            data: SaveData::Strings(vec![strings.into()].into()),
            ..tensor("s", &[])
        });
    }
    let options = SaveOptions {
        format,
        ..SaveOptions::default()
    };
    let context = context();
    save(prefix, &tensors, &options, &mut Call::new(&context)).unwrap();
}

#[test]
fn tensors_of_a_restore_arrive_one_by_one() {
    for (format, in_request_order, restore_sequentially) in [
        (Format::V2, false, false),
        (Format::V2, true, false),
        (Format::V2, false, true),
        (Format::V1, true, false),
    ] {
        let (_dir, prefix) = in_dir();
        three_and_strings(&prefix, format);
        let memory: &'static Shared = Box::leak(Box::new(Shared::new(100_000)));
        let (sender, strings) = sync_channel(1);
        let take = move |strings| sender.send(strings).unwrap();
        let take: &'static mut (dyn FnMut(_) + Send) = Box::leak(Box::new(take));
        let mut tensors = vec![
            destination("c", leaked(0, 100_000)),
            RestoreTensor {
                data: RestoreData::Bytes(memory.0.as_slice().into()),
                ..destination("a", leaked(0, 100_000))
            },
        ];
        if format == Format::V2 {
            tensors.push(RestoreTensor {
                dtype: DType::String,
                shape: Shape::new([]).unwrap(),
                data: RestoreData::TakeStrings(take),
                ..destination("s", &mut [])
            });
        }
        let num = tensors.len();
        let options = RestoreOptions {
            in_request_order,
            restore_sequentially,
            ..RestoreOptions::default()
        };
        let (job, steps) = stepped();
        let from = RestoreFrom::Prefix(prefix);
        let job = restore_async(from, tensors, &options, job).unwrap();
        assert!(steps.next());
        // Nothing has been read yet.
        assert!(job.wait_tensor(0, NOW).is_none());
        assert!(!job.is_done());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| job.wait_tensor(1, None).unwrap());
            drop(steps);
            waiting.join().unwrap().unwrap();
            assert!(memory.is_all(1));
        });
        for index in 0..num {
            job.wait_tensor(index, None).unwrap().unwrap();
        }
        if format == Format::V2 {
            let strings: crate::bundle::StringTensor = strings.recv().unwrap();
            assert_eq!(strings.get(0), Some(&b"text"[..]));
        }
        job.wait(None).unwrap().unwrap();
        assert_eq!(job.results().unwrap().len(), num);
        let error = job.wait_tensor(num, NOW).unwrap().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[test]
fn a_tensor_that_fails_does_not_keep_others_from_arriving() {
    let (dir, prefix) = in_dir();
    three_and_strings(&prefix, Format::V2);
    // The second tensor's bytes.
    let data = dir.path().join("m.data-00000-of-00001");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[150_000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let tensors = || Vec::from(["a", "b", "c"].map(|key| destination(key, leaked(0, 100_000))));
    for keep_going in [true, false] {
        let options = RestoreOptions {
            keep_going,
            restore_sequentially: true,
            ..RestoreOptions::default()
        };
        let from = RestoreFrom::Prefix(prefix.clone());
        let job = JobOptions::new(context());
        let job = restore_async(from, tensors(), &options, job).unwrap();
        job.wait_tensor(0, None).unwrap().unwrap();
        let error = job.wait_tensor(1, None).unwrap().unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        assert_eq!(error.tensor_index(), Some(1));
        let third = job.wait_tensor(2, None).unwrap();
        match keep_going {
            true => third.unwrap(),
            false => assert_eq!(third.unwrap_err().code(), Code::Aborted),
        }
        assert_eq!(job.wait(None).unwrap().unwrap_err().code(), Code::DataLoss);
    }
}

#[test]
fn tensors_are_read_in_the_order_of_the_request_if_that_is_asked_for() {
    let (dir, prefix) = in_dir();
    three_and_strings(&prefix, Format::V2);
    let data = dir.path().join("m.data-00000-of-00001");
    let mut bytes = std::fs::read(&data).unwrap();
    // The last one in the file, at which the restore ends.
    bytes[250_000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    for in_request_order in [false, true] {
        let options = RestoreOptions {
            in_request_order,
            ..RestoreOptions::default()
        };
        let one_thread = ContextOptions {
            num_threads: 1,
            ..ContextOptions::default()
        };
        let job = JobOptions::new(Arc::new(Context::new(one_thread).unwrap()));
        let keys = ["b", "c", "a"];
        let tensors = Vec::from(keys.map(|key| destination(key, leaked(0, 100_000))));
        let from = RestoreFrom::Prefix(prefix.clone());
        let job = restore_async(from, tensors, &options, job).unwrap();
        job.wait_tensor(0, None).unwrap().unwrap();
        let damaged = job.wait_tensor(1, None).unwrap().unwrap_err();
        assert_eq!(damaged.code(), Code::DataLoss);
        // The first one in the file is the last of the request.
        let last = job.wait_tensor(2, None).unwrap();
        assert_eq!(last.is_err(), in_request_order, "{last:?}");
    }
}

#[test]
fn tensors_that_a_cancelled_restore_did_not_get_to_are_aborted() {
    let (_dir, prefix) = in_dir();
    three_and_strings(&prefix, Format::V2);
    let (job, steps) = stepped();
    let tensors = vec![destination("a", leaked(0, 100_000))];
    let reader = Arc::new(Reader::open(&prefix).unwrap());
    let from = RestoreFrom::Reader(reader);
    let job = restore_async(from, tensors, &RestoreOptions::default(), job).unwrap();
    assert!(steps.next());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| job.wait_tensor(0, None).unwrap());
        job.cancel();
        drop(steps);
        assert_eq!(waiting.join().unwrap().unwrap_err().code(), Code::Aborted);
    });
    assert_eq!(job.wait(None).unwrap().unwrap_err().code(), Code::Cancelled);
}

#[test]
fn a_restore_of_nothing_that_is_there_is_the_jobs_error() {
    let (dir, _) = in_dir();
    let from = RestoreFrom::Prefix(dir.path().join("none"));
    let tensors = vec![destination("a", leaked(0, 4))];
    let job = JobOptions::new(context());
    let job = restore_async(from, tensors, &RestoreOptions::default(), job).unwrap();
    assert_eq!(job.wait(None).unwrap().unwrap_err().code(), Code::NotFound);
    let error = job.wait_tensor(0, None).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
}

#[test]
fn a_job_that_cannot_write_ends_with_the_systems_error_and_leaves_nothing() {
    let (dir, prefix) = in_dir();
    let fail = Plan {
        fail: Some((2, libc::ENOSPC)),
        ..Plan::default()
    };
    let _watch = Watch::on(dir.path(), fail);
    let tensors = vec![tensor("a", leaked(1, 4))];
    let options = SaveOptions::default();
    let job = JobOptions::new(context());
    let job = save_async(&prefix, tensors, &options, Snapshot::Copied, job).unwrap();
    let error = job.wait(None).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(Disk::read(dir.path()).names().is_empty());
}

/// Tensors of many sizes, of strings too.
fn of_many_sizes() -> Vec<SaveTensor<'static>> {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let sizes = [5, 3_000_000, 0, 262_144, 1, 700_001, 4096, 2_500_000];
    let mut tensors: Vec<SaveTensor<'static>> = Vec::new();
    for ((key, size), value) in keys.into_iter().zip(sizes).zip(1..) {
        tensors.push(tensor(key, leaked(value, size)));
    }
    for (key, lengths) in [
        ("s", vec![3, 0, 600_000]),
        ("t", vec![1; 40_000]),
        ("u", vec![]),
    ] {
        let strings = lengths.iter().map(|&len| (&*leaked(b'x', len)).into());
        tensors.push(SaveTensor {
            dtype: DType::String,
            shape: Shape::new([i64::try_from(lengths.len()).unwrap()]).unwrap(),
            data: SaveData::Strings(strings.collect()),
            ..tensor(key, &[])
        });
    }
    tensors
}

#[test]
fn a_save_that_copies_first_writes_the_same_files_whatever_fits_the_budget() {
    for (alignment, max_shard_size) in [(0, 0), (64, 0), (4096, 1 << 20)] {
        let options = SaveOptions {
            alignment,
            max_shard_size,
            ..SaveOptions::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("m");
        save(
            &prefix,
            &of_many_sizes(),
            &options,
            &mut Call::new(&context()),
        )
        .unwrap();
        let plain = Disk::read(dir.path());
        for num_threads in [1, 3] {
            // The last one needs no more than it has; all are used twice.
            for max_host_bytes in [2 << 20, 5 << 20, 12 << 20, 64 << 20] {
                let context = Arc::new(
                    Context::new(ContextOptions {
                        max_host_bytes,
                        num_threads,
                    })
                    .unwrap(),
                );
                for _ in 0..2 {
                    let job = JobOptions::new(context.clone());
                    let tensors = of_many_sizes();
                    let job = save_async(&prefix, tensors, &options, Snapshot::Copied, job);
                    let job = job.unwrap();
                    job.wait(None).unwrap().unwrap();
                    let stats = job.stats().unwrap();
                    assert!(stats.peak_host_bytes <= max_host_bytes);
                    assert_eq!(job.progress().bytes_done, job.progress().bytes_total);
                    assert_eq!(Disk::read(dir.path()).contents(), plain.contents());
                }
            }
        }
    }
}
