//! What a restore or a save refuses, in which words, and what becomes of the other tensors then.

use tfckpt::{
    Call, Code, DType, DestSpan, LatestOptions, Progress, Reader, RestoreData, RestoreOptions,
    RestoreTensor, SaveOptions, Shape, Verify, checkpoint_exists, latest_checkpoint,
};

use super::support::{
    Item, Request, Restored, Value, context, quick, restore, restore_one, save, temp_dir,
};

/// A checkpoint of `a`, float [2]; `b`, int32 [2,3]; `s`, string [2]; `z`, float [1].
fn checkpoint(dir: &tempfile::TempDir) -> (Reader, Vec<Item>) {
    let ints = (0..6i32).flat_map(i32::to_le_bytes).collect();
    let items = vec![
        Item::floats("a", &[2], &[1.0, 2.0]),
        Item::new("b", DType::Int32, &[2, 3], Value::Bytes(ints)),
        Item::new(
            "s",
            DType::String,
            &[2],
            Value::Strings(vec![b"x".to_vec(), b"yz".to_vec()]),
        ),
        Item::floats("z", &[1], &[9.0]),
    ];
    let prefix = dir.path().join("m");
    save(&prefix, &items, &quick(), &mut Call::new(&context(1))).unwrap();
    (Reader::open(&prefix).unwrap(), items)
}

fn request(key: &str, dtype: DType, dims: &[i64], spec: &str) -> Request {
    Request {
        key: key.into(),
        dtype,
        shape: Shape::new(dims).unwrap(),
        spec: spec.to_owned(),
    }
}

fn untouched(value: &Value) -> bool {
    match value {
        Value::Bytes(bytes) => bytes.iter().all(|&byte| byte == 0xa5),
        Value::Strings(items) => items.is_empty(),
    }
}

#[test]
fn a_request_that_does_not_fit_is_refused_in_tensorflows_words() {
    let dir = temp_dir();
    let (reader, _) = checkpoint(&dir);
    let prefix = "tensor_name = b; ";
    let cases = [
        (
            request("b", DType::Float, &[2, 3], ""),
            Code::InvalidArgument,
            "tensor_name = b; expected dtype float does not equal original dtype int32".to_owned(),
        ),
        (
            request("b", DType::Int32, &[3, 2], ""),
            Code::InvalidArgument,
            format!("{prefix}shape in shape_and_slice spec [3,2] does not match the shape stored in checkpoint: [2,3]"),
        ),
        (
            request("b", DType::Int32, &[6], ""),
            Code::InvalidArgument,
            format!("{prefix}shape in shape_and_slice spec [6] does not match the shape stored in checkpoint: [2,3]"),
        ),
        (
            request("b", DType::Int32, &[], ""),
            Code::InvalidArgument,
            format!("{prefix}shape in shape_and_slice spec [] does not match the shape stored in checkpoint: [2,3]"),
        ),
        (
            request("b", DType::Int32, &[1, 3], "4 3 0,1:-"),
            Code::InvalidArgument,
            format!("{prefix}shape in shape_and_slice spec [4,3] does not match the shape stored in checkpoint: [2,3]"),
        ),
        (
            request("s", DType::String, &[3], ""),
            Code::InvalidArgument,
            "tensor_name = s; shape in shape_and_slice spec [3] does not match the shape stored in checkpoint: [2]".to_owned(),
        ),
        (
            request("s", DType::Float, &[2], ""),
            Code::InvalidArgument,
            "tensor_name = s; expected dtype float does not equal original dtype string".to_owned(),
        ),
        (
            request("nope", DType::Float, &[2], ""),
            Code::NotFound,
            "Key nope not found in checkpoint".to_owned(),
        ),
        (
            request("b", DType::Int32, &[2, 3], "2 3"),
            Code::InvalidArgument,
            "Expected a pair of numbers or '-' but got '3': string = 3".to_owned(),
        ),
        (
            request("b", DType::Int32, &[2, 3], "2 3 0,3:-"),
            Code::Internal,
            "Extent in dimension 0 out of bounds: shape = [2,3], slice = 0,3:-".to_owned(),
        ),
        (
            request("b", DType::Int32, &[2], "2 3 0,2"),
            Code::Internal,
            "Mismatching ranks: shape = [2,3], slice = 0,2".to_owned(),
        ),
    ];
    for (request, code, message) in cases {
        let error = restore_one(&reader, &request, Verify::Full, &context(1)).unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (code, &message[..]),
            "{request:?}"
        );
        assert_eq!(error.tensor_index(), Some(0));
        assert_eq!(error.key(), Some(&request.key[..]));
    }
}

#[test]
fn memory_of_the_wrong_size_or_kind_is_refused() {
    let dir = temp_dir();
    let (reader, _) = checkpoint(&dir);
    let context = context(1);
    let (mut bytes, mut other) = ([0xa5; 7], [0xa5; 8]);
    let mut strings = tfckpt::StringTensor::default();
    for (key, dtype, data) in [
        (
            "a",
            DType::Float,
            RestoreData::Bytes(bytes.as_mut_slice().into()),
        ),
        ("a", DType::Float, RestoreData::Strings(&mut strings)),
        (
            "s",
            DType::String,
            RestoreData::Bytes(other.as_mut_slice().into()),
        ),
    ] {
        let mut tensors = [RestoreTensor {
            key: key.as_bytes(),
            dtype,
            shape: Shape::new([2]).unwrap(),
            slice_spec: "",
            device_name: "",
            data,
        }];
        let outcome = reader.restore(
            &mut tensors,
            &RestoreOptions::default(),
            &mut Call::new(&context),
        );
        let error = outcome.unwrap().into_result().unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert_eq!((bytes, other), ([0xa5; 7], [0xa5; 8]));
}

#[test]
fn overlapping_destinations_are_refused() {
    let dir = temp_dir();
    let (reader, _) = checkpoint(&dir);
    let context = context(1);
    let mut memory = [0xa5u8; 12];
    let start = memory.as_mut_ptr();
    let tensor = |key: &'static [u8], dims: i64, offset: usize, len: usize| RestoreTensor {
        key,
        dtype: DType::Float,
        shape: Shape::new([dims]).unwrap(),
        slice_spec: "",
        device_name: "",
        // SAFETY: inside of `memory`, which nothing else uses meanwhile; that the two overlap is what
        // the call has to notice before it writes.
        data: RestoreData::Bytes(unsafe { DestSpan::from_raw_parts(start.add(offset), len) }),
    };
    let mut tensors = [tensor(b"z", 1, 4, 4), tensor(b"a", 2, 0, 8)];
    let error = reader
        .restore(
            &mut tensors,
            &RestoreOptions {
                keep_going: true,
                ..RestoreOptions::default()
            },
            &mut Call::new(&context),
        )
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(error.tensor_index(), Some(1));
    let mut tensors = [tensor(b"z", 1, 8, 4), tensor(b"a", 2, 0, 8)];
    let outcome = reader.restore(
        &mut tensors,
        &RestoreOptions {
            keep_going: true,
            ..RestoreOptions::default()
        },
        &mut Call::new(&context),
    );
    outcome.unwrap().into_result().unwrap();
    let want = [1.0f32, 2.0, 9.0].map(f32::to_le_bytes).concat();
    assert_eq!(&memory[..], want);
}

#[test]
fn the_lowest_failing_tensor_is_reported_and_nothing_is_touched() {
    let dir = temp_dir();
    let (reader, items) = checkpoint(&dir);
    // Against key order, so that the look-up meets the last one first.
    let requests = [
        items[3].request(),
        request("nope", DType::Float, &[2], ""),
        items[0].request(),
        request("b", DType::Float, &[2, 3], ""),
        items[2].request(),
    ];
    let Restored {
        results,
        ended,
        values,
    } = restore(&reader, &requests, Verify::Full, false, &context(2)).unwrap();
    let ended = ended.unwrap();
    assert_eq!(
        (ended.code(), ended.tensor_index()),
        (Code::NotFound, Some(1))
    );
    let codes: Vec<Option<Code>> = results
        .iter()
        .map(|result| result.as_ref().err().map(tfckpt::Error::code))
        .collect();
    let (aborted, missing) = (Some(Code::Aborted), Some(Code::NotFound));
    assert_eq!(
        codes,
        [
            aborted,
            missing,
            aborted,
            Some(Code::InvalidArgument),
            aborted
        ]
    );
    assert!(values.iter().all(untouched));
}

#[test]
fn missing_keys_come_first_and_dtypes_that_differ_make_one_error() {
    let dir = temp_dir();
    let (reader, items) = checkpoint(&dir);
    let ended = |requests: &[Request], keep_going| {
        let restored = restore(&reader, requests, Verify::Full, keep_going, &context(1)).unwrap();
        restored.ended.map(|error| {
            let place = (error.code(), error.tensor_index());
            (place, error.message().to_owned())
        })
    };
    // As TensorFlow: in the order of the data file, not of the request, and before shapes.
    let mut requests = vec![
        request("a", DType::Float, &[3], ""),
        request("b", DType::Float, &[2, 3], ""),
        items[3].request(),
        request("a", DType::Int64, &[2], ""),
    ];
    let text = "tensor_name = a; expected dtype int64 does not equal original dtype float\n\
                tensor_name = b; expected dtype float does not equal original dtype int32";
    let place = (Code::InvalidArgument, Some(1));
    assert_eq!(ended(&requests, false), Some((place, text.to_owned())));
    assert_eq!(ended(&requests, true), None);
    requests.push(request("nope", DType::Float, &[2], ""));
    let text = "Key nope not found in checkpoint".to_owned();
    assert_eq!(
        ended(&requests, false),
        Some(((Code::NotFound, Some(4)), text))
    );
}

#[test]
fn with_keep_going_every_other_tensor_is_restored() {
    let dir = temp_dir();
    let (reader, items) = checkpoint(&dir);
    let requests = [
        items[3].request(),
        request("nope", DType::Float, &[2], ""),
        items[0].request(),
        request("b", DType::Float, &[2, 3], ""),
        items[2].request(),
    ];
    let restored = restore(&reader, &requests, Verify::Full, true, &context(2)).unwrap();
    assert!(restored.ended.is_none());
    for (index, item) in [(0, 3), (2, 0), (4, 2)] {
        assert!(restored.results[index].is_ok());
        assert_eq!(restored.values[index], items[item].value);
    }
    assert!(untouched(&restored.values[1]) && untouched(&restored.values[3]));
    let error = restored.complete().unwrap_err();
    assert_eq!(
        (error.code(), error.tensor_index()),
        (Code::NotFound, Some(1))
    );
}

/// Damage that shows only while reading.
#[test]
fn a_damaged_tensor_ends_the_call_unless_it_is_to_keep_going() {
    let dir = temp_dir();
    let (reader, items) = checkpoint(&dir);
    for (key, damaged) in [("a", 0), ("s", 2)] {
        let info = reader.find(key.as_bytes()).unwrap();
        let path = dir.path().join("m.data-00000-of-00001");
        let sound = std::fs::read(&path).unwrap();
        let mut data = sound.clone();
        data[(info.offset + info.size) as usize - 1] ^= 1;
        std::fs::write(&path, data).unwrap();
        let reader = Reader::open(&dir.path().join("m")).unwrap();
        let requests: Vec<Request> = items.iter().map(Item::request).collect();
        for num_threads in [1, 4] {
            let context = context(num_threads);
            let restored = restore(&reader, &requests, Verify::Full, true, &context).unwrap();
            assert!(restored.ended.is_none());
            for (index, result) in restored.results.iter().enumerate() {
                if index == damaged {
                    let error = result.as_ref().unwrap_err();
                    assert_eq!(error.code(), Code::DataLoss, "{error}");
                    assert_eq!(error.tensor_index(), Some(damaged));
                    assert_eq!(error.key(), Some(key.as_bytes()));
                } else {
                    assert_eq!(restored.values[index], items[index].value);
                }
            }
            let restored = restore(&reader, &requests, Verify::Full, false, &context).unwrap();
            let ended = restored.ended.as_ref().unwrap();
            assert_eq!(
                (ended.code(), ended.tensor_index()),
                (Code::DataLoss, Some(damaged))
            );
            for (index, result) in restored.results.iter().enumerate() {
                match result {
                    Ok(()) => assert_eq!(restored.values[index], items[index].value),
                    Err(error) if index == damaged => assert_eq!(error.code(), Code::DataLoss),
                    Err(error) => assert_eq!(error.code(), Code::Aborted, "{error}"),
                }
            }
            // Nobody asked for a check, so the bytes are what the file has.
            restore(&reader, &requests, Verify::None, false, &context)
                .unwrap()
                .complete()
                .unwrap();
        }
        std::fs::write(&path, sound).unwrap();
    }
}

#[test]
fn a_save_that_cannot_be_leaves_nothing_behind() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(1);
    let a = Item::floats("a", &[2], &[1.0, 2.0]);
    let cases: Vec<(&str, Vec<Item>, SaveOptions)> = vec![
        ("No variables to save", vec![], quick()),
        (
            "Adding duplicate key: a",
            vec![a.clone(), a.clone()],
            quick(),
        ),
        (
            "a tensor's key is empty",
            vec![Item::floats("", &[1], &[1.0])],
            quick(),
        ),
        (
            "memory does not have the size",
            vec![a.clone(), Item::floats("b", &[3], &[1.0, 2.0])],
            quick(),
        ),
        (
            "Slice in shape_and_slice specification does not match the shape of the tensor to  save: \
             4 0,3, tensor: [2]",
            vec![Item {
                spec: "4 0,3".to_owned(),
                ..a.clone()
            }],
            quick(),
        ),
        (
            "alignment must be a power of two",
            vec![a.clone()],
            SaveOptions {
                alignment: 48,
                ..quick()
            },
        ),
        (
            "tensors of this dtype",
            vec![Item {
                dtype: DType::Variant,
                ..a.clone()
            }],
            quick(),
        ),
        (
            "tensors of this dtype",
            vec![Item {
                dtype: DType::Resource,
                ..a.clone()
            }],
            quick(),
        ),
    ];
    for (message, items, options) in cases {
        let error = save(&prefix, &items, &options, &mut Call::new(&context)).unwrap_err();
        assert!(error.message().starts_with(message), "{error}");
        let code = if message.starts_with("tensors of") {
            Code::Unimplemented
        } else {
            Code::InvalidArgument
        };
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "{message}"
        );
    }
    for prefix in ["", "folder/"] {
        let error = save(
            prefix.as_ref(),
            std::slice::from_ref(&a),
            &quick(),
            &mut Call::new(&context),
        );
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    }
}

/// Cancelled at the first, the second, … report, until a call gets through.
#[test]
fn a_cancelled_save_is_as_if_it_had_not_been() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(2);
    let options = SaveOptions {
        update_state: true,
        ..quick()
    };
    let old = [Item::floats("a", &[2], &[1.0, 2.0])];
    save(&prefix, &old, &options, &mut Call::new(&context)).unwrap();
    let new: Vec<Item> = (0..20)
        .map(|i| Item::floats(&format!("b{i}"), &[2], &[3.0, 4.0]))
        .collect();
    let files = || {
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|file| {
                let path = file.unwrap().path();
                (path.display().to_string(), std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    let mut cancelled = 0;
    for allowed in 0.. {
        let mut reports = 0;
        let mut call = Call::new(&context);
        call.progress = Progress::new(Some(Box::new(|update| {
            assert!(update.bytes_done <= update.bytes_total);
            reports += 1;
            reports <= allowed
        })));
        let saved = save(&prefix, &new, &options, &mut call);
        drop(call);
        let Err(error) = saved else {
            break;
        };
        assert_eq!(error.code(), Code::Cancelled, "{error}");
        assert!(files() == before, "cancelled at report {allowed}");
        cancelled += 1;
    }
    assert!(cancelled >= 2, "{cancelled}");
    assert_eq!(Reader::open(&prefix).unwrap().num_tensors().unwrap(), 20);
}

#[test]
fn a_cancelled_restore_says_so() {
    let dir = temp_dir();
    let (reader, items) = checkpoint(&dir);
    let context = context(1);
    let mut memory = [0u8; 8];
    let mut tensors = [RestoreTensor {
        key: b"a",
        dtype: items[0].dtype,
        shape: items[0].shape.clone(),
        slice_spec: "",
        device_name: "",
        data: RestoreData::Bytes(memory.as_mut_slice().into()),
    }];
    let mut call = Call::new(&context);
    call.progress = Progress::new(Some(Box::new(|_| false)));
    let outcome = reader
        .restore(
            &mut tensors,
            &RestoreOptions {
                keep_going: true,
                ..RestoreOptions::default()
            },
            &mut call,
        )
        .unwrap();
    assert_eq!(
        outcome.results[0].as_ref().unwrap_err().code(),
        Code::Aborted
    );
    assert_eq!(outcome.into_result().unwrap_err().code(), Code::Cancelled);
    let mut call = Call::new(&context);
    call.progress = Progress::new(Some(Box::new(|_| false)));
    let error = reader.verify(&mut |_| {}, &mut call).unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
}

#[test]
fn a_folder_without_a_state_file_has_no_latest_checkpoint() {
    let dir = temp_dir();
    let error = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(!checkpoint_exists(&dir.path().join("m")).unwrap());
    std::fs::write(
        dir.path().join("checkpoint"),
        "model_checkpoint_path: \"gone\"\n",
    )
    .unwrap();
    for fall_back in [false, true] {
        let options = LatestOptions {
            fall_back,
            ..LatestOptions::default()
        };
        let error = latest_checkpoint(dir.path(), options).unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        assert!(error.message().contains("gone"), "{error}");
    }
    std::fs::write(
        dir.path().join("checkpoint"),
        "model_checkpoint_path: oops\n",
    )
    .unwrap();
    let error = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{error}");
}

/// A folder that is not there is no reason to fail: nothing is in it.
#[test]
fn a_prefix_in_a_folder_that_does_not_exist_is_like_any_other_without_a_checkpoint() {
    let dir = temp_dir();
    let prefix = dir.path().join("gone/m");
    assert!(!checkpoint_exists(&prefix).unwrap());
    let error = Reader::open(&prefix).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.message(),
        format!(
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for {}",
            prefix.display()
        )
    );
}

#[test]
fn of_neighbours_that_are_read_together_only_the_damaged_one_fails() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    // Pieces that the system puts where they belong, and pieces that are copied there.
    for size in [3000, 30] {
        let items: Vec<Item> = (0..300u16)
            .map(|i| {
                let bytes = (0..size).map(|at| (i.wrapping_mul(7).wrapping_add(at) % 255) as u8);
                let value = Value::Bytes(bytes.collect());
                Item::new(
                    &format!("{:03}", 299 - i),
                    DType::Uint8,
                    &[size.into()],
                    value,
                )
            })
            .collect();
        save(&prefix, &items, &quick(), &mut Call::new(&context(2))).unwrap();
        let path = dir.path().join("m.data-00000-of-00001");
        let mut data = std::fs::read(&path).unwrap();
        data[usize::from(size) * 123] ^= 0x10;
        std::fs::write(&path, data).unwrap();
        let reader = Reader::open(&prefix).unwrap();
        let requests: Vec<Request> = items.iter().map(Item::request).collect();
        let restored = restore(&reader, &requests, Verify::Full, true, &context(2)).unwrap();
        for (index, result) in restored.results.iter().enumerate() {
            match result {
                Ok(()) => assert_eq!(restored.values[index], items[index].value),
                Err(error) => {
                    assert_eq!((error.code(), index), (Code::DataLoss, 123), "{error}");
                    assert_eq!(error.offset(), Some(u64::from(size) * 123));
                }
            }
        }
        assert!(restored.results[123].is_err());
    }
}
