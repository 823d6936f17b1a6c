//! Checkpoints that several releases of TensorFlow wrote; see `tests/fixtures/README.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;
use tfckpt::{
    Code, Context, DType, LatestOptions, Reader, Shape, Verify, checkpoint_exists,
    get_checkpoint_state, latest_checkpoint,
};

use super::naive::{self, Cut};
use super::support::{
    Request, VERIFY_MODES, Value, context, json_file, json_key, json_shape, json_value, list,
    restore, restore_one, tests_dir, verify,
};

/// Folder and manifest of each release.
fn releases() -> Vec<(PathBuf, Json)> {
    let fixtures = tests_dir().join("fixtures");
    let releases: Vec<(PathBuf, Json)> = ["tf-2.12.1", "tf-2.15.1", "tf-2.21.0"]
        .iter()
        .map(|name| {
            let folder = fixtures.join(name);
            let expected = json_file(&folder.join("expected.json"));
            (folder, expected)
        })
        .collect();
    assert_eq!(releases.len(), 3);
    releases
}

/// Prefix and manifest of every checkpoint of a format.
fn checkpoints(v1: bool) -> Vec<(PathBuf, Json)> {
    let mut all = Vec::new();
    for (folder, expected) in releases() {
        for (prefix, checkpoint) in expected["checkpoints"].as_object().unwrap() {
            if prefix.starts_with("v1/") == v1 {
                all.push((folder.join(prefix), checkpoint.clone()));
            }
        }
    }
    all
}

fn all_checkpoints() -> Vec<(PathBuf, Json)> {
    let mut all = checkpoints(false);
    all.extend(checkpoints(true));
    all
}

fn rows(checkpoint: &Json) -> &[Json] {
    checkpoint["tensors"].as_array().unwrap()
}

fn dtype(row: &Json) -> DType {
    let number = row["dtype"].as_i64().unwrap();
    let dtype = DType::from_number(i32::try_from(number).unwrap()).unwrap();
    assert_eq!(dtype.python_name(), row["dtype_name"].as_str().unwrap());
    dtype
}

fn element_size(dtype: DType) -> usize {
    dtype.size().unwrap_or(1)
}

fn slices(row: &Json) -> &[Json] {
    row.get("slices")
        .map_or(&[], |slices| slices.as_array().unwrap())
}

fn usize_dims(shape: &Shape) -> Vec<usize> {
    shape.dims().iter().map(|&dim| dim as usize).collect()
}

/// The cut that a row of `slices` is about.
fn cut_of(spec: &str) -> Cut {
    naive::parse_spec(spec).unwrap().1
}

/// The whole tensor, put together from its stored slices if TensorFlow would not; `None` if they
/// leave a gap. Every element knows whether it is there.
fn whole(row: &Json) -> Option<Value> {
    if let Some(value) = json_value(row) {
        return Some(value);
    }
    let (elements, size, is_string) = known_elements(row);
    let elements: Vec<Vec<u8>> = elements.into_iter().collect::<Option<_>>()?;
    Some(assemble(&elements, size, is_string))
}

fn assemble(elements: &[Vec<u8>], size: usize, is_string: bool) -> Value {
    if is_string {
        Value::Strings(elements.to_vec())
    } else {
        assert!(elements.iter().all(|element| element.len() == size));
        Value::Bytes(elements.concat())
    }
}

/// Each element of the tensor as far as a stored slice holds it.
fn known_elements(row: &Json) -> (Vec<Option<Vec<u8>>>, usize, bool) {
    let (dtype, shape) = (dtype(row), json_shape(row));
    let (size, dims) = (element_size(dtype), usize_dims(&shape));
    // Numbering the elements turns "take the slice" into "where do its elements belong".
    let num = shape.num_elements() as usize;
    let numbers = Value::Strings((0..num).map(|i| i.to_le_bytes().to_vec()).collect());
    let mut known: Vec<Option<Vec<u8>>> = vec![None; num];
    for slice in slices(row).iter().filter(|slice| slice["stored"] == true) {
        let cut = cut_of(slice["spec"].as_str().unwrap());
        let Value::Strings(places) = naive::take(&numbers, 1, &dims, &cut) else {
            unreachable!("strings stay strings");
        };
        let elements: Vec<Vec<u8>> = match json_value(slice).expect("a stored slice has a value") {
            Value::Bytes(bytes) => bytes.chunks_exact(size).map(Into::into).collect(),
            Value::Strings(items) => items,
        };
        assert_eq!(places.len(), elements.len());
        for (place, element) in places.iter().zip(elements) {
            let place = usize::from_le_bytes(place.as_slice().try_into().unwrap());
            known[place] = Some(element);
        }
    }
    (known, size, dtype == DType::String)
}

/// The value of a slice: as recorded, else taken from the stored ones; `None` across a gap.
fn slice_value(row: &Json, slice: &Json) -> Option<Value> {
    if let Some(value) = json_value(slice) {
        return Some(value);
    }
    let dims = usize_dims(&json_shape(row));
    let (known, size, is_string) = known_elements(row);
    let known: Vec<Vec<u8>> = known
        .into_iter()
        .map(|element| element.map_or(b"gap".to_vec(), |element| [b"+", &element[..]].concat()))
        .collect();
    let cut = cut_of(slice["spec"].as_str().unwrap());
    let Value::Strings(elements) = naive::take(&Value::Strings(known), 1, &dims, &cut) else {
        unreachable!("strings stay strings");
    };
    let elements: Option<Vec<Vec<u8>>> = elements
        .iter()
        .map(|element| Some(element.strip_prefix(b"+")?.to_vec()))
        .collect();
    Some(assemble(&elements?, size, is_string))
}

#[test]
fn every_checkpoint_lists_its_keys_dtypes_and_shapes() {
    let mut num = 0;
    for (prefix, checkpoint) in all_checkpoints() {
        let reader = Reader::open(&prefix).unwrap();
        let (entries, ended) = list(&reader);
        assert!(ended.is_none(), "{}: {ended:?}", prefix.display());
        assert_eq!(reader.num_tensors().unwrap(), entries.len());
        let rows = rows(&checkpoint);
        if checkpoint.get("num_tensors").is_none() {
            let keys: Vec<Vec<u8>> = entries.iter().map(|(key, _)| key.clone()).collect();
            assert_eq!(keys, rows.iter().map(json_key).collect::<Vec<_>>());
        }
        let listed: BTreeMap<_, _> = entries.into_iter().collect();
        for row in rows {
            let key = json_key(row);
            let found = reader.find(&key).unwrap();
            for info in [listed[&key].as_ref().unwrap(), &found] {
                assert_eq!(info.key, key);
                assert_eq!(info.dtype, dtype(row));
                assert_eq!(info.shape, json_shape(row), "{}", key.escape_ascii());
                // The manifest names some of the stored slices.
                let partitioned = slices(row).iter().any(|slice| slice["stored"] == true);
                assert_eq!(!info.slices.is_empty(), partitioned);
                let dims: String = info
                    .shape
                    .dims()
                    .iter()
                    .map(|dim| format!("{dim} "))
                    .collect();
                let stored: Vec<Cut> = info
                    .slices
                    .iter()
                    .map(|slice| cut_of(&format!("{dims}{slice}")))
                    .collect();
                for slice in slices(row).iter().filter(|slice| slice["stored"] == true) {
                    assert!(stored.contains(&cut_of(slice["spec"].as_str().unwrap())));
                }
            }
            num += 1;
        }
        assert!(checkpoint_exists(&prefix).unwrap());
    }
    assert!(num > 500, "{num}");
}

#[test]
fn every_tensor_is_restored_whole_in_every_mode() {
    let context = context(2);
    let mut num = 0;
    for (prefix, checkpoint) in all_checkpoints() {
        let reader = Reader::open(&prefix).unwrap();
        let mut requests = Vec::new();
        let mut values = Vec::new();
        for row in rows(&checkpoint) {
            let request = Request {
                key: json_key(row),
                dtype: dtype(row),
                shape: json_shape(row),
                spec: String::new(),
            };
            if dtype(row) == DType::Variant {
                continue;
            }
            if let Some(value) = whole(row) {
                requests.push(request);
                values.push(value);
            } else {
                let error = restore_one(&reader, &request, Verify::Full, &context).unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument);
                let text = row["error"].as_str().unwrap();
                let text = text.strip_prefix("InvalidArgumentError: ").unwrap();
                // What the message goes on with is ours.
                assert!(error.message().starts_with(text), "{error}");
            }
        }
        for mode in VERIFY_MODES {
            let restored = restore(&reader, &requests, mode, false, &context).unwrap();
            for ((request, value), want) in requests
                .iter()
                .zip(restored.complete().unwrap())
                .zip(&values)
            {
                let key = request.key.escape_ascii();
                assert_eq!(value, *want, "{} {key} {mode:?}", prefix.display());
                num += 1;
            }
        }
    }
    assert!(num > 1500, "{num}");
}

#[test]
fn every_recorded_slice_is_restored_in_every_mode() {
    let context = context(2);
    let (mut num, mut gaps, mut beyond_tensorflow) = (0, 0, 0);
    for (prefix, checkpoint) in all_checkpoints() {
        let reader = Reader::open(&prefix).unwrap();
        for row in rows(&checkpoint) {
            for slice in slices(row) {
                let spec = slice["spec"].as_str().unwrap().to_owned();
                let lengths: Vec<i64> = cut_of(&spec)
                    .iter()
                    .map(|&(_, length)| length as i64)
                    .collect();
                let request = Request {
                    key: json_key(row),
                    dtype: dtype(row),
                    shape: Shape::new(lengths).unwrap(),
                    spec,
                };
                for mode in VERIFY_MODES {
                    let value = restore_one(&reader, &request, mode, &context);
                    if let Some(want) = slice_value(row, slice) {
                        assert_eq!(value.unwrap(), want, "{request:?} {mode:?}");
                        beyond_tensorflow += u32::from(slice.get("error").is_some());
                        num += 1;
                    } else {
                        let error = value.unwrap_err();
                        assert_eq!(error.code(), Code::InvalidArgument, "{request:?}");
                        let texts = [
                            "Does not have sufficient slices",
                            "Error copying slice data",
                        ];
                        let message = error.message();
                        assert!(
                            texts.iter().any(|text| message.starts_with(text)),
                            "{error}"
                        );
                        gaps += 1;
                    }
                }
            }
        }
    }
    assert!(
        num > 300 && gaps > 0 && beyond_tensorflow > 0,
        "{num} {gaps} {beyond_tensorflow}"
    );
}

/// Every box of a small tensor, whatever slices it is stored in.
#[test]
fn every_possible_slice_of_the_fixtures_matrices_is_restored() {
    let context = context(1);
    let mut num = 0;
    for (folder, expected) in releases() {
        let prefix = "slices/cuts";
        let reader = Reader::open(&folder.join(prefix)).unwrap();
        for row in rows(&expected["checkpoints"][prefix]) {
            let (dtype, shape) = (dtype(row), json_shape(row));
            let (Some(value), &[height, width]) = (whole(row), shape.dims()) else {
                continue;
            };
            let dims = usize_dims(&shape);
            let mut requests = Vec::new();
            let mut values = Vec::new();
            for (top, left) in (0..height).flat_map(|top| (0..width).map(move |left| (top, left))) {
                for rows in 1..=height - top {
                    for columns in 1..=width - left {
                        requests.push(Request {
                            key: json_key(row),
                            dtype,
                            shape: Shape::new([rows, columns]).unwrap(),
                            spec: format!("{height} {width} {top},{rows}:{left},{columns}"),
                        });
                        let cut = vec![
                            (top as usize, rows as usize),
                            (left as usize, columns as usize),
                        ];
                        values.push(naive::take(&value, element_size(dtype), &dims, &cut));
                    }
                }
            }
            for mode in VERIFY_MODES {
                let restored = restore(&reader, &requests, mode, false, &context).unwrap();
                let restored = restored.complete().unwrap();
                for ((request, value), want) in requests.iter().zip(restored).zip(&values) {
                    assert_eq!(value, *want, "{request:?} {mode:?}");
                    num += 1;
                }
            }
        }
    }
    assert!(num > 10_000, "{num}");
}

#[test]
fn verify_finds_no_damage_in_what_tensorflow_wrote() {
    for (prefix, _) in checkpoints(false) {
        for num_threads in [1, 4] {
            let reader = Reader::open(&prefix).unwrap();
            let damage = verify(&reader, &context(num_threads)).unwrap();
            assert!(damage.is_empty(), "{}: {damage:?}", prefix.display());
        }
    }
}

#[test]
fn variants_are_listed_and_verified_and_refused() {
    let context = context(1);
    let mut num = 0;
    for (folder, expected) in releases() {
        let prefix = folder.join("variant/lists");
        let reader = Reader::open(&prefix).unwrap();
        for row in rows(&expected["checkpoints"]["variant/lists"]) {
            if dtype(row) != DType::Variant {
                continue;
            }
            let info = reader.find(&json_key(row)).unwrap();
            assert!(info.size > 0);
            let error = refused(&reader, &Request::whole(&info), &context);
            assert_eq!(error.code(), Code::Unimplemented, "{error}");
            assert_eq!(error.key(), Some(&json_key(row)[..]));
            num += 1;

            // That its bytes are verified shows when one of them changes.
            let copy = super::support::temp_dir();
            let copied = copy.path().join("lists");
            let (mut data_from, mut index_from) = (prefix.clone(), prefix.clone());
            data_from.as_mut_os_string().push(".data-00000-of-00001");
            index_from.as_mut_os_string().push(".index");
            let mut data = std::fs::read(data_from).unwrap();
            data[(info.offset + info.size / 2) as usize] ^= 0x10;
            std::fs::write(copy.path().join("lists.data-00000-of-00001"), data).unwrap();
            std::fs::copy(index_from, copy.path().join("lists.index")).unwrap();
            let damage = verify(&Reader::open(&copied).unwrap(), &context).unwrap();
            assert_eq!(damage.len(), 1, "{damage:?}");
            assert_eq!(damage[0].code(), Code::DataLoss);
            assert_eq!(damage[0].key(), Some(&json_key(row)[..]));
        }
    }
    assert!(num >= 6, "{num}");
}

fn refused(reader: &Reader, request: &Request, context: &Context) -> tfckpt::Error {
    restore_one(reader, request, Verify::Full, context).unwrap_err()
}

#[test]
fn an_index_of_several_blocks_gives_every_tensor() {
    let (folder, expected) = releases().pop().unwrap();
    let expected = &expected["checkpoints"]["multiblock/m"];
    let reader = Reader::open(&folder.join("multiblock/m")).unwrap();
    let (entries, ended) = list(&reader);
    assert!(ended.is_none());
    assert_eq!(
        entries.len() as u64,
        expected["num_tensors"].as_u64().unwrap()
    );
    let mut keys = Vec::new();
    let mut requests = Vec::new();
    for (key, info) in &entries {
        keys.extend_from_slice(key);
        keys.push(b'\n');
        requests.push(Request::whole(info.as_ref().unwrap()));
    }
    let crc = expected["keys_crc32c"].as_u64().unwrap();
    assert_eq!(u64::from(crc32c::crc32c(&keys)), crc);
    // Against key order too, which makes the look-ups go back and forth.
    for reversed in [false, true] {
        if reversed {
            requests.reverse();
        }
        let restored = restore(&reader, &requests, Verify::Full, false, &context(2)).unwrap();
        let mut values = restored.complete().unwrap();
        if reversed {
            values.reverse();
        }
        let bytes: Vec<u8> = values
            .into_iter()
            .flat_map(|value| match value {
                Value::Bytes(bytes) => bytes,
                Value::Strings(_) => panic!("not a number"),
            })
            .collect();
        let want = expected["values_in_key_order_hex"].as_str().unwrap();
        assert_eq!(bytes, super::support::hex(want));
    }
}

#[test]
fn a_saved_model_opens_by_its_folder() {
    for (folder, expected) in releases() {
        let reader = Reader::open(&folder.join("saved_model")).unwrap();
        let want = rows(&expected["checkpoints"]["saved_model/variables/variables"]).len();
        assert_eq!(reader.num_tensors().unwrap(), want);
        let error = Reader::open(&folder.join("slices")).unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{error}");
    }
}

#[test]
fn state_files_say_what_tensorflow_reads_in_them() {
    let mut num = 0;
    for (folder, expected) in releases() {
        for (name, want) in expected["states"].as_object().unwrap() {
            let dir = folder.join(name);
            let state = get_checkpoint_state(&dir, None).unwrap().unwrap();
            // TensorFlow was run inside of the release's folder.
            let path = |row: &Json| folder.join(row.as_str().unwrap()).display().to_string();
            assert_eq!(
                state.model_checkpoint_path,
                path(&want["model_checkpoint_path"])
            );
            let paths = want["all_model_checkpoint_paths"].as_array().unwrap();
            let paths: Vec<String> = paths.iter().map(path).collect();
            assert_eq!(state.all_model_checkpoint_paths, paths);
            let times = want["all_model_checkpoint_timestamps"].as_array().unwrap();
            let times: Vec<f64> = times.iter().map(|time| time.as_f64().unwrap()).collect();
            assert_eq!(state.all_model_checkpoint_timestamps, times);
            assert_eq!(
                state.last_preserved_timestamp.unwrap_or(0.0),
                want["last_preserved_timestamp"].as_f64().unwrap()
            );
            for fall_back in [false, true] {
                let options = LatestOptions {
                    fall_back,
                    ..LatestOptions::default()
                };
                let latest = latest_checkpoint(&dir, options);
                let latest = latest.unwrap();
                assert_eq!(
                    latest.prefix.display().to_string(),
                    path(&want["latest_checkpoint"])
                );
                assert!(latest.fell_back.is_none());
            }
            num += 1;
        }
    }
    assert!(num >= 9, "{num}");
}
