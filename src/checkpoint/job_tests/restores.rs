//! Restores in the background: which tensors arrive, when, and what becomes of the others.

use super::*;

/// Three tensors and one of strings, in a checkpoint of this format.
fn three_and_strings(prefix: &Path, format: Format) {
    let strings: &'static [u8] = b"text";
    let mut tensors: Vec<SaveTensor<'static>> = ["a", "b", "c"]
        .into_iter()
        .zip(1..)
        .map(|(key, value)| tensor(key, kept(value, 100_000)))
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
        let memory: &'static Shared = keep(Box::new(Shared::new(100_000)));
        let (sender, strings) = sync_channel(1);
        let take = move |strings| sender.send(strings).unwrap();
        let take: &'static mut (dyn FnMut(_) + Send + Sync) = keep(Box::new(take));
        let mut tensors = vec![
            destination("c", kept(0, 100_000)),
            RestoreTensor {
                data: RestoreData::Bytes(memory.0.as_slice().into()),
                ..destination("a", kept(0, 100_000))
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
    let tensors = || Vec::from(["a", "b", "c"].map(|key| destination(key, kept(0, 100_000))));
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
        assert!(error.key().is_some(), "{error}");
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
        let tensors = Vec::from(keys.map(|key| destination(key, kept(0, 100_000))));
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
    let tensors = vec![destination("a", kept(0, 100_000))];
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
    let tensors = vec![destination("a", kept(0, 4))];
    let job = JobOptions::new(context());
    let job = restore_async(from, tensors, &RestoreOptions::default(), job).unwrap();
    assert_eq!(job.wait(None).unwrap().unwrap_err().code(), Code::NotFound);
    let error = job.wait_tensor(0, None).unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
}
