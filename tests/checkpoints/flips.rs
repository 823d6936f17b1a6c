//! Every bit of a small checkpoint flipped, and every truncation: an error, never a wrong value.

use std::path::{Path, PathBuf};

use tfckpt::{Code, Context, DType, Error, Reader, Verify};

use super::support::{
    Item, Request, Value, context, list, quick, restore, restore_one, save, temp_dir, tests_dir,
    verify,
};

const INDEX: &str = "m.index";
const DATA: &str = "m.data-00000-of-00001";

/// A small checkpoint with everything in it, its files, and what it holds.
struct Sound {
    index: Vec<u8>,
    data: Vec<u8>,
    tensors: Vec<(Request, Value)>,
}

fn sound(dir: &Path) -> Sound {
    let strings = Value::Strings(vec![b"ab".to_vec(), Vec::new(), vec![b'x'; 130]]);
    let mut items = vec![
        Item::floats("a/floats", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        Item::new("empty", DType::Int64, &[3, 0], Value::Bytes(Vec::new())),
        Item::new("scalar", DType::Bool, &[], Value::Bytes(vec![1])),
        Item::new("strings", DType::String, &[3], strings),
    ];
    let mut tensors: Vec<(Request, Value)> = items
        .iter()
        .map(|item| (item.request(), item.value.clone()))
        .collect();
    for (spec, elements) in [("4 0,3", &[1.5f32, 2.5, 3.5][..]), ("4 3,1", &[4.5])] {
        let mut item = Item::floats("parts", &[elements.len() as i64], elements);
        item.spec = spec.to_owned();
        items.push(item);
    }
    let parts = Item::floats("parts", &[4], &[1.5, 2.5, 3.5, 4.5]);
    tensors.push((parts.request(), parts.value));
    save(
        &dir.join("m"),
        &items,
        &quick(),
        &mut tfckpt::Call::new(&context(1)),
    )
    .unwrap();
    Sound {
        index: std::fs::read(dir.join(INDEX)).unwrap(),
        data: std::fs::read(dir.join(DATA)).unwrap(),
        tensors,
    }
}

/// Everything that goes wrong with the checkpoint; panics on a wrong value.
fn damage_of(prefix: &Path, tensors: &[(Request, Value)], context: &Context) -> Vec<Error> {
    let reader = match Reader::open(prefix) {
        Ok(reader) => reader,
        Err(error) => return vec![error],
    };
    let (entries, ended) = list(&reader);
    let mut errors: Vec<Error> = ended.into_iter().collect();
    for (key, info) in entries {
        match info {
            Ok(info) => {
                let known = tensors.iter().find(|(request, _)| request.key == key);
                let (request, _) = known.expect("a key that nobody saved");
                assert_eq!((info.dtype, &info.shape), (request.dtype, &request.shape));
            }
            Err(error) => errors.push(error),
        }
    }
    for (request, want) in tensors {
        match restore_one(&reader, request, Verify::Full, context) {
            Ok(value) => assert_eq!(value, *want, "a wrong value of {request:?}"),
            Err(error) => errors.push(error),
        }
    }
    errors
}

#[test]
fn every_flipped_bit_of_the_index_is_found() {
    let dir = temp_dir();
    let Sound { index, tensors, .. } = sound(dir.path());
    let context = context(1);
    let prefix = dir.path().join("m");
    assert!(damage_of(&prefix, &tensors, &context).is_empty());
    for bit in 0..index.len() * 8 {
        let mut flipped = index.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(dir.path().join(INDEX), flipped).unwrap();
        // All of so small an index is read on opening.
        let error = Reader::open(&prefix).expect_err(&format!("bit {bit} of the index"));
        assert_eq!(error.code(), Code::DataLoss, "bit {bit}: {error}");
        assert_eq!(
            error.file(),
            Some(dir.path().join(INDEX).as_path()),
            "bit {bit}: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_of_the_data_is_found_and_harms_only_its_tensor() {
    let dir = temp_dir();
    let Sound { data, tensors, .. } = sound(dir.path());
    let context = context(1);
    let prefix = dir.path().join("m");
    for bit in 0..data.len() * 8 {
        let mut flipped = data.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(dir.path().join(DATA), flipped).unwrap();
        let errors = damage_of(&prefix, &tensors, &context);
        assert_eq!(errors.len(), 1, "bit {bit} of the data: {errors:?}");
        let error = &errors[0];
        assert_eq!(error.code(), Code::DataLoss, "bit {bit}: {error}");
        assert_eq!(
            error.file(),
            Some(dir.path().join(DATA).as_path()),
            "{error}"
        );
        assert!(error.key().is_some() && error.offset().is_some(), "{error}");

        let reader = Reader::open(&prefix).unwrap();
        let found = verify(&reader, &context).unwrap();
        assert_eq!(found.len(), 1, "bit {bit} of the data: {found:?}");
        assert_eq!(found[0].code(), Code::DataLoss);
        assert_eq!(found[0].key(), error.key());

        // All at once, the others come back nevertheless.
        let requests: Vec<Request> = tensors.iter().map(|(request, _)| request.clone()).collect();
        let restored = restore(&reader, &requests, Verify::Full, true, &context).unwrap();
        assert!(restored.ended.is_none());
        let failed = restored.results.iter().filter(|result| result.is_err());
        assert_eq!(failed.count(), 1);
    }
}

#[test]
fn every_truncation_is_found() {
    let dir = temp_dir();
    let Sound {
        index,
        data,
        tensors,
    } = sound(dir.path());
    let context = context(1);
    let prefix = dir.path().join("m");
    for len in 0..index.len() {
        std::fs::write(dir.path().join(INDEX), &index[..len]).unwrap();
        let error = Reader::open(&prefix).expect_err(&format!("{len} bytes of the index"));
        assert_eq!(error.code(), Code::DataLoss, "{len}: {error}");
    }
    std::fs::write(dir.path().join(INDEX), &index).unwrap();
    for len in 0..data.len() {
        std::fs::write(dir.path().join(DATA), &data[..len]).unwrap();
        let errors = damage_of(&prefix, &tensors, &context);
        assert!(!errors.is_empty(), "{len} bytes of the data");
        for error in errors {
            assert_eq!(error.code(), Code::OutOfRange, "{len}: {error}");
            assert!(
                error
                    .message()
                    .starts_with("Read less bytes than requested"),
                "{error}"
            );
        }
        assert!(
            !verify(&Reader::open(&prefix).unwrap(), &context)
                .unwrap()
                .is_empty()
        );
    }
    for len in 1..20 {
        // What follows the last tensor belongs to nobody.
        let longer = [&data[..], &vec![0xee; len]].concat();
        std::fs::write(dir.path().join(DATA), longer).unwrap();
        assert!(damage_of(&prefix, &tensors, &context).is_empty());
    }
}

/// In an index of several blocks damage to one of them does not hide the others' tensors.
#[test]
fn damage_to_one_block_of_many_hides_no_other_tensor() {
    let from = tests_dir().join("fixtures/tf-2.21.0/multiblock");
    let dir = temp_dir();
    std::fs::copy(from.join(DATA), dir.path().join(DATA)).unwrap();
    let prefix: PathBuf = dir.path().join("m");
    let index = std::fs::read(from.join(INDEX)).unwrap();
    let reader = Reader::open(&from.join("m")).unwrap();
    let keys: Vec<Vec<u8>> = list(&reader).0.into_iter().map(|(key, _)| key).collect();

    let (mut refused, mut partly) = (0, 0);
    let step = index.len() / 60;
    for at in (0..index.len()).step_by(step) {
        let mut flipped = index.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(dir.path().join(INDEX), flipped).unwrap();
        let reader = match Reader::open(&prefix) {
            Ok(reader) => reader,
            Err(error) => {
                assert_eq!(error.code(), Code::DataLoss);
                refused += 1;
                continue;
            }
        };
        let (entries, ended) = list(&reader);
        let ended = ended.expect("damage to a block goes unnoticed");
        assert_eq!(ended.code(), Code::DataLoss, "{ended}");
        assert!(ended.offset().is_some(), "{ended}");
        assert!(
            entries.len() >= 50,
            "only {} entries with byte {at} changed",
            entries.len()
        );
        let listed: Vec<&Vec<u8>> = entries.iter().map(|(key, _)| key).collect();
        for key in keys.iter().step_by(7) {
            match reader.find(key) {
                Ok(_) => assert!(listed.contains(&key)),
                Err(error) => {
                    assert_eq!(error.code(), Code::DataLoss, "{error}");
                    assert!(!listed.contains(&key));
                }
            }
        }
        partly += 1;
    }
    assert!(refused > 10 && partly > 10, "{refused} {partly}");
}
