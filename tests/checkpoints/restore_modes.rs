//! Restores that are not plain: reshaped, and one tensor after the other.

use std::cell::RefCell;

use tfckpt::{
    Call, Code, DType, Progress, Reader, RestoreData, RestoreOptions, RestoreOutcome,
    RestoreTensor, Shape, StringTensor, Update,
};

use super::support::{
    Item, Request, Restored, Value, context, quick, restore_with, save, temp_dir,
};

const RESHAPE: RestoreOptions = RestoreOptions {
    verify: tfckpt::Verify::Full,
    keep_going: false,
    reshape: true,
    restore_sequentially: false,
    in_request_order: false,
    strict: false,
};

fn request(item: &Item, dims: &[i64], spec: &str) -> Request {
    Request {
        shape: Shape::new(dims).unwrap(),
        spec: spec.to_owned(),
        ..item.request()
    }
}

fn restore_one(
    reader: &Reader,
    request: Request,
    options: &RestoreOptions,
) -> tfckpt::Result<Value> {
    let restored: Restored =
        restore_with(reader, &[request], options, &mut Call::new(&context(1)))?;
    Ok(restored.complete()?.remove(0))
}

#[test]
fn a_tensor_is_reshaped_to_any_shape_of_as_many_elements() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let ints: Vec<u8> = (0..24i32).flat_map(i32::to_le_bytes).collect();
    let words = [&b"a"[..], b"", b"cc", b"ddd"].map(<[u8]>::to_vec).to_vec();
    let items = [
        Item::new("ints", DType::Int32, &[4, 6], Value::Bytes(ints.clone())),
        Item::new(
            "words",
            DType::String,
            &[2, 2],
            Value::Strings(words.clone()),
        ),
        Item::floats("scalar", &[], &[1.5]),
        Item::floats("empty", &[0, 3], &[]),
    ];
    save(&prefix, &items, &quick(), &mut Call::new(&context(1))).unwrap();
    let reader = Reader::open(&prefix).unwrap();
    let rows = |from: usize, to: usize| Value::Bytes(ints[from * 24..to * 24].to_vec());
    let cases = [
        (0, &[24][..], "", rows(0, 4)),
        (0, &[2, 3, 4], "", rows(0, 4)),
        (0, &[12], "4 6 1,2:-", rows(1, 3)),
        (0, &[2, 6], "4 6 1,2:-", rows(1, 3)),
        (1, &[4], "", Value::Strings(words.clone())),
        (1, &[2, 1], "2 2 1,1:-", Value::Strings(words[2..].to_vec())),
        (2, &[1, 1], "", items[2].value.clone()),
        (3, &[5, 0], "", items[3].value.clone()),
    ];
    for (item, dims, spec, want) in cases {
        let request = request(&items[item], dims, spec);
        let value = restore_one(&reader, request.clone(), &RESHAPE).unwrap();
        assert_eq!(value, want, "{request:?}");
        let plain = restore_one(&reader, request.clone(), &RestoreOptions::default());
        let same = spec.is_empty() && request.shape == items[item].shape || dims == [2, 6];
        assert_eq!(plain.is_ok(), same, "{request:?}");
    }

    // The slice is what is reshaped, and the spec still has to be the stored tensor's.
    let cases = [
        (
            &[5][..],
            "",
            "Input to reshape is a tensor with 24 values, but the requested shape has 5",
        ),
        (
            &[24],
            "4 6 1,2:-",
            "Input to reshape is a tensor with 12 values, but the requested shape has 24",
        ),
        (
            &[12],
            "6 4 0,3:-",
            "tensor_name = ints; shape in shape_and_slice spec [6,4] does not match the shape stored in \
             checkpoint: [4,6]",
        ),
    ];
    for (dims, spec, message) in cases {
        let error = restore_one(&reader, request(&items[0], dims, spec), &RESHAPE).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(message), "{error}");
        assert_eq!(error.tensor_index(), Some(0));
    }
}

/// Six tensors, three for each of two devices, and the names of their devices in various spellings.
fn six(dir: &tempfile::TempDir) -> (Reader, Vec<Item>, [&'static str; 6]) {
    let names = ["a0", "b0", "a1", "b1", "a2", "b2"];
    let items: Vec<Item> = names
        .iter()
        .zip(1u8..)
        .map(|(name, byte)| {
            Item::new(
                name,
                DType::Uint8,
                &[100_000],
                Value::Bytes(vec![byte; 100_000]),
            )
        })
        .collect();
    let prefix = dir.path().join("m");
    save(&prefix, &items, &quick(), &mut Call::new(&context(1))).unwrap();
    let (a, b) = ("/device:CPU:0", "/device:CPU:1");
    (
        Reader::open(&prefix).unwrap(),
        items,
        [a, b, "/cpu:0", "/cpu:1", a, b],
    )
}

/// Restores tensors of 100,000 bytes in the order given, with their devices.
fn restore_in_order(
    reader: &Reader,
    order: &[(&str, &str)],
    keep_going: bool,
    call: &mut Call<'_>,
) -> (tfckpt::Result<RestoreOutcome>, Vec<Vec<u8>>) {
    let mut memory = vec![vec![0xa5; 100_000]; order.len()];
    let mut tensors: Vec<RestoreTensor<'_>> = order
        .iter()
        .zip(&mut memory)
        .map(|((key, device), memory)| RestoreTensor {
            key: key.as_bytes(),
            dtype: DType::Uint8,
            shape: Shape::new([100_000]).unwrap(),
            slice_spec: "",
            device_name: device,
            data: RestoreData::Bytes(memory.as_mut_slice().into()),
        })
        .collect();
    let options = RestoreOptions {
        keep_going,
        restore_sequentially: true,
        ..RestoreOptions::default()
    };
    let outcome = reader.restore(&mut tensors, &options, call);
    // The list is as the caller gave it.
    let keys: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.key).collect();
    let given: Vec<&[u8]> = order.iter().map(|(key, _)| key.as_bytes()).collect();
    assert_eq!(keys, given);
    drop(tensors);
    (outcome, memory)
}

fn codes(outcome: &RestoreOutcome) -> Vec<Option<Code>> {
    let code = |result: &tfckpt::Result<()>| result.as_ref().err().map(tfckpt::Error::code);
    outcome.results.iter().map(code).collect()
}

#[test]
fn within_each_device_one_tensor_follows_the_other() {
    let dir = temp_dir();
    let (reader, items, devices) = six(&dir);
    // The second tensor of device a is damaged: what comes before it is there, what comes after is not.
    let data = dir.path().join("m.data-00000-of-00001");
    let mut bytes = std::fs::read(&data).unwrap();
    let damaged = reader.find(b"a1").unwrap();
    bytes[damaged.offset as usize + 50_000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let reader = Reader::open(&dir.path().join("m")).unwrap();

    let by_name = |name: &str| items.iter().position(|item| item.key == name.as_bytes());
    let order = ["b0", "a0", "a1", "a2", "b1", "b2"];
    let order: Vec<(&str, &str)> = order
        .iter()
        .map(|&name| (name, devices[by_name(name).unwrap()]))
        .collect();
    for threads in [1, 4] {
        let context = context(threads);
        let mut call = Call::new(&context);
        let (outcome, memory) = restore_in_order(&reader, &order, false, &mut call);
        let outcome = outcome.unwrap();
        let ended = outcome.ended.as_ref().unwrap();
        assert_eq!(
            (ended.code(), ended.tensor_index()),
            (Code::DataLoss, Some(2))
        );
        assert_eq!(ended.key(), Some(&b"a1"[..]));
        let mut codes = codes(&outcome);
        // It goes side by side with the damaged one.
        codes.remove(4);
        let (aborted, damaged) = (Some(Code::Aborted), Some(Code::DataLoss));
        assert_eq!(codes, [None, None, damaged, aborted, aborted]);
        assert!(memory[0].iter().all(|&byte| byte == 2));
        assert!(memory[1].iter().all(|&byte| byte == 1));
        for later in [3, 5] {
            assert!(memory[later].iter().all(|&byte| byte == 0xa5), "{later}");
        }

        let (outcome, memory) = restore_in_order(&reader, &order, true, &mut Call::new(&context));
        let outcome = outcome.unwrap();
        assert!(outcome.ended.is_none());
        assert_eq!(
            self::codes(&outcome),
            [None, None, damaged, None, None, None]
        );
        assert!(memory[5].iter().all(|&byte| byte == 6));
    }
}

#[test]
fn all_tensors_are_checked_before_the_first_is_read() {
    let dir = temp_dir();
    let (reader, ..) = six(&dir);
    let context = context(2);
    let cases = [
        (("nope", ""), Code::NotFound),
        (("a1", "/job:w/nonsense"), Code::InvalidArgument),
    ];
    for (bad, code) in cases {
        let order = [("a0", ""), ("b0", ""), bad];
        let (outcome, memory) = restore_in_order(&reader, &order, false, &mut Call::new(&context));
        let outcome = outcome.unwrap();
        let ended = outcome.ended.as_ref().unwrap();
        assert_eq!((ended.code(), ended.tensor_index()), (code, Some(2)));
        assert_eq!(ended.key(), Some(bad.0.as_bytes()));
        assert!(memory.iter().flatten().all(|&byte| byte == 0xa5));

        let (outcome, memory) = restore_in_order(&reader, &order, true, &mut Call::new(&context));
        assert_eq!(codes(&outcome.unwrap()), [None, None, Some(code)]);
        assert!(memory[1].iter().all(|&byte| byte == 2));
    }
}

#[test]
fn progress_goes_through_all_of_a_sequential_restore_once() {
    let dir = temp_dir();
    let (reader, _, devices) = six(&dir);
    let order: Vec<(&str, &str)> = ["a0", "b0", "a1", "b1", "a2", "b2"]
        .into_iter()
        .zip(devices)
        .collect();
    let context = context(2);
    let updates: RefCell<Vec<Update>> = RefCell::default();
    let mut call = Call::new(&context);
    call.progress = Progress::new(Some(Box::new(|update| {
        updates.borrow_mut().push(*update);
        true
    })));
    let (outcome, _) = restore_in_order(&reader, &order, false, &mut call);
    outcome.unwrap().into_result().unwrap();
    assert_eq!((call.stats.num_tensors, call.stats.bytes), (6, 600_000));
    drop(call);
    let updates = updates.into_inner();
    let all = |update: &Update| (update.bytes_total, update.tensors_total) == (600_000, 6);
    assert!(updates.len() >= 2 && updates.iter().all(all), "{updates:?}");
    assert!(updates.is_sorted_by_key(|update| (update.bytes_done, update.tensors_done)));
    let last = updates.last().unwrap();
    assert_eq!((last.bytes_done, last.tensors_done), (600_000, 6));

    // A cancel ends all rounds.
    let mut call = Call::new(&context);
    call.progress = Progress::new(Some(Box::new(|_| false)));
    let (outcome, memory) = restore_in_order(&reader, &order, true, &mut call);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.ended.unwrap().code(), Code::Cancelled);
    assert!(memory.iter().flatten().all(|&byte| byte == 0xa5));
}

#[test]
fn strings_take_their_turn_too() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let words = |words: &[&[u8]]| Value::Strings(words.iter().map(|word| word.to_vec()).collect());
    let items = [
        Item::new("s", DType::String, &[2], words(&[b"x", b"yz"])),
        Item::floats("f", &[1], &[2.5]),
        Item::new("t", DType::String, &[], words(&[b"last"])),
    ];
    save(&prefix, &items, &quick(), &mut Call::new(&context(1))).unwrap();
    let reader = Reader::open(&prefix).unwrap();
    let (mut s, mut t) = (StringTensor::default(), StringTensor::default());
    let mut float = [0u8; 4];
    let mut tensors = [
        (RestoreData::Strings(&mut s), &items[0]),
        (RestoreData::Bytes(float.as_mut_slice().into()), &items[1]),
        (RestoreData::Strings(&mut t), &items[2]),
    ]
    .map(|(data, item)| RestoreTensor {
        key: &item.key,
        dtype: item.dtype,
        shape: item.shape.clone(),
        slice_spec: "",
        device_name: "",
        data,
    });
    let options = RestoreOptions {
        restore_sequentially: true,
        ..RestoreOptions::default()
    };
    let outcome = reader.restore(&mut tensors, &options, &mut Call::new(&context(2)));
    outcome.unwrap().into_result().unwrap();
    assert_eq!(s.iter().collect::<Vec<_>>(), [&b"x"[..], b"yz"]);
    assert_eq!(t.iter().collect::<Vec<_>>(), [b"last"]);
    assert_eq!(f32::from_le_bytes(float), 2.5);
}
