//! Saves in the background: what they let go of when, how they end, and what they leave behind.

use super::*;

#[test]
fn a_borrowed_save_returns_at_once_and_says_when_tensors_may_change() {
    for format in [Format::V2, Format::V1] {
        let (_dir, prefix) = in_dir();
        let options = SaveOptions {
            format,
            ..SaveOptions::default()
        };
        let (job, steps) = stepped();
        let tensors = vec![tensor("a", kept(7, 1000))];
        let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
        // The first report comes before anything is written.
        assert!(steps.next());
        assert!(!job.is_done());
        assert!(!job.wait_snapshot(NOW));
        assert!(job.wait(NOW).is_none());
        assert_eq!(job.progress().bytes_total, 1000);
        assert!(job.stats().is_none() && job.path().is_none());
        // One of the next when all has been copied.
        while !job.wait_snapshot(NOW) {
            assert!(steps.go_on() && steps.next());
        }
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
        let memory: &'static Shared = keep(Box::new(Shared::new(5 << 20)));
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
    let twice = || vec![tensor("a", kept(1, 4)), tensor("a", kept(2, 4))];
    for snapshot in [Snapshot::Copied, Snapshot::Borrowed] {
        let job = JobOptions::new(context());
        let error = save_async(&prefix, twice(), &SaveOptions::default(), snapshot, job);
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
        let job = JobOptions {
            max_host_bytes: 1,
            ..JobOptions::new(context())
        };
        let one = vec![tensor("a", kept(1, 4))];
        let error = save_async(&prefix, one, &SaveOptions::default(), snapshot, job).unwrap_err();
        assert!(error.message().contains("minimum"), "{error}");
    }
    assert!(Disk::read(dir.path()).names().is_empty());
}

#[test]
fn a_save_that_is_cancelled_at_any_moment_leaves_what_was_there() {
    let (dir, prefix) = in_dir();
    let first = vec![tensor("a", kept(1, 3 << 20))];
    let job = JobOptions::new(context());
    let options = SaveOptions::default();
    let job = save_async(&prefix, first, &options, Snapshot::Copied, job).unwrap();
    job.wait(None).unwrap().unwrap();
    let before = Disk::read(dir.path());
    let mut num_cancelled = 0;
    loop {
        let (job, steps) = stepped();
        let tensors = vec![tensor("a", kept(2, 3 << 20))];
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
    let tensors = vec![tensor("a", kept(1, 3 << 20))];
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
    let tensors = vec![tensor("a", kept(1, 4))];
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
    let tensors = vec![tensor("a", kept(1, 4))];
    let options = SaveOptions::default();
    let job = save_async(&prefix, tensors, &options, Snapshot::Borrowed, job).unwrap();
    slot.set(job).unwrap();
    ready.send(()).unwrap();
    assert_eq!(receiver.recv().unwrap(), (true, false));
    slot.get().unwrap().wait(None).unwrap().unwrap();
}

#[test]
fn a_job_that_cannot_write_ends_with_the_systems_error_and_leaves_nothing() {
    let (dir, prefix) = in_dir();
    let fail = Plan {
        fail: Some((2, libc::ENOSPC)),
        ..Plan::default()
    };
    let _watch = Watch::on(dir.path(), fail);
    let tensors = vec![tensor("a", kept(1, 4))];
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
        tensors.push(tensor(key, kept(value, size)));
    }
    for (key, lengths) in [
        ("s", vec![3, 0, 600_000]),
        ("t", vec![1; 40_000]),
        ("u", vec![]),
    ] {
        let strings = lengths.iter().map(|&len| (&*kept(b'x', len)).into());
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
                // Twice all of them, and once those of the host, which these are.
                for snapshot in [Snapshot::Copied, Snapshot::Copied, Snapshot::OnDevice] {
                    let job = JobOptions::new(context.clone());
                    let tensors = of_many_sizes();
                    let job = save_async(&prefix, tensors, &options, snapshot, job);
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
