//! Random checkpoints, saved and restored, compared with a naive model.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use tfckpt::{Call, DType, Reader, RestoreOptions, SaveOptions, Shape, ViewOptions};

use super::naive::{self, Cut};
use super::support::{
    Item, Request, VERIFY_MODES, Value, context, list, quick, restore_with, save, temp_dir, verify,
};

/// A tensor before it is cut into what is saved.
#[derive(Clone, Debug)]
struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    value: Value,
    /// Where each dimension is cut; nothing is cut if all are empty.
    cuts: Vec<Vec<Index>>,
    /// Mixes the order of the slices, and how they and their devices are written.
    seed: u64,
    /// Slices to restore: two numbers per dimension.
    requests: Vec<Vec<(Index, Index)>>,
}

const DEVICES: [&str; 4] = ["", "/device:CPU:0", "/job:w/task:1/device:GPU:3", "/cpu:1"];

fn savable() -> Vec<DType> {
    let savable = |dtype: &DType| dtype.size().is_some() || *dtype == DType::String;
    let all: Vec<DType> = DType::ALL.iter().copied().filter(savable).collect();
    assert!(all.len() > 20);
    all
}

fn dims() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => vec(0usize..4, 0..=6),
        4 => vec(1usize..5, 1..=3),
        2 => vec(1usize..4, 3..=6),
    ]
}

fn tensor() -> impl Strategy<Value = Tensor> {
    (select(savable()), dims()).prop_flat_map(|(dtype, dims)| {
        let num: usize = dims.iter().product();
        let value = match dtype.size() {
            Some(size) => vec(any::<u8>(), num * size).prop_map(Value::Bytes).boxed(),
            None => vec(vec(any::<u8>(), 0..40), num)
                .prop_map(Value::Strings)
                .boxed(),
        };
        let rank = dims.len();
        (
            value,
            vec(vec(any::<Index>(), 0..3), rank),
            any::<u64>(),
            vec(vec((any::<Index>(), any::<Index>()), rank), 1..6),
        )
            .prop_map(move |(value, cuts, seed, requests)| Tensor {
                dtype,
                dims: dims.clone(),
                value,
                cuts,
                seed,
                requests,
            })
    })
}

fn options() -> impl Strategy<Value = SaveOptions> {
    let max_shard_size = prop_oneof![Just(0), 1u64..2000];
    let alignment = select(vec![0, 1, 8, 64, 4096]);
    (any::<bool>(), max_shard_size, alignment).prop_map(
        |(shard_by_device, max_shard_size, alignment)| SaveOptions {
            shard_by_device,
            max_shard_size,
            alignment,
            ..quick()
        },
    )
}

/// Small and different each time; quality does not matter.
fn mix(seed: &mut u64) -> usize {
    *seed = seed
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*seed >> 33) as usize
}

fn shape(dims: impl IntoIterator<Item = usize>) -> Shape {
    Shape::new(dims.into_iter().map(|dim| dim as i64).collect::<Vec<_>>()).unwrap()
}

fn spec(dims: &[usize], cut: &Cut, seed: &mut u64) -> String {
    let mut text: String = dims.iter().map(|dim| format!("{dim} ")).collect();
    for (i, (&dim, &(start, length))) in dims.iter().zip(cut).enumerate() {
        text.push_str(if i > 0 { ":" } else { "" });
        let whole = (start, length) == (0, dim);
        // Either way to write a whole dimension is allowed; an empty one has no other.
        if whole && (dim == 0 || mix(seed).is_multiple_of(2)) {
            text.push('-');
        } else {
            text.push_str(&format!("{start},{length}"));
        }
    }
    text
}

impl Tensor {
    fn size(&self) -> usize {
        self.dtype.size().unwrap_or(1)
    }

    /// The grid that the cuts make.
    fn grid(&self) -> Vec<Cut> {
        let mut cells: Vec<Cut> = vec![Vec::new()];
        for (&dim, cuts) in self.dims.iter().zip(&self.cuts) {
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(dim + 1)).collect();
            edges.extend([0, dim]);
            edges.sort_unstable();
            edges.dedup();
            let mut ranges: Vec<(usize, usize)> = edges
                .windows(2)
                .map(|edge| (edge[0], edge[1] - edge[0]))
                .collect();
            if ranges.is_empty() {
                ranges.push((0, 0));
            }
            cells = cells
                .iter()
                .flat_map(|cell| {
                    ranges.iter().map(move |&range| {
                        let mut longer = cell.clone();
                        longer.push(range);
                        longer
                    })
                })
                .collect();
        }
        cells
    }

    /// What is saved, in some order.
    fn items(&self, key: &[u8]) -> Vec<Item> {
        let mut seed = self.seed;
        let mut cells = self.grid();
        let whole = cells.len() < 2 || mix(&mut seed).is_multiple_of(3);
        let item = |dims: Vec<usize>, spec: String, value, seed: &mut u64| Item {
            key: key.to_owned(),
            dtype: self.dtype,
            shape: shape(dims),
            spec,
            device: DEVICES[mix(seed) % DEVICES.len()].to_owned(),
            value,
        };
        if whole {
            return vec![item(
                self.dims.clone(),
                String::new(),
                self.value.clone(),
                &mut seed,
            )];
        }
        for i in (1..cells.len()).rev() {
            cells.swap(i, mix(&mut seed) % (i + 1));
        }
        let mut items = Vec::new();
        for cell in cells {
            let spec = spec(&self.dims, &cell, &mut seed);
            let value = naive::take(&self.value, self.size(), &self.dims, &cell);
            let dims = cell.iter().map(|&(_, length)| length).collect();
            items.push(item(dims, spec, value, &mut seed));
        }
        items
    }

    /// Requests for all of it and for slices, and what they must give.
    fn requests(&self, key: &[u8]) -> Vec<(Request, Value)> {
        let request = |dims: Vec<usize>, spec| Request {
            key: key.to_owned(),
            dtype: self.dtype,
            shape: shape(dims),
            spec,
        };
        let mut all = vec![(
            request(self.dims.clone(), String::new()),
            self.value.clone(),
        )];
        let mut seed = !self.seed;
        for wanted in &self.requests {
            let cut: Cut = self
                .dims
                .iter()
                .zip(wanted)
                .map(|(&dim, (start, length))| {
                    let start = start.index(dim.max(1));
                    // At least one, since no spec can say zero.
                    (start, (1 + length.index((dim - start).max(1))).min(dim))
                })
                .collect();
            if cut.is_empty() {
                // A scalar has no slices.
                continue;
            }
            let spec = spec(&self.dims, &cut, &mut seed);
            let value = naive::take(&self.value, self.size(), &self.dims, &cut);
            let dims = cut.iter().map(|&(_, length)| length).collect();
            all.push((request(dims, spec), value));
        }
        all
    }
}

#[test]
fn random_checkpoints_come_back_whole_and_in_slices() {
    let config = Config {
        cases: 160,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (
        proptest::collection::btree_map(vec(any::<u8>(), 1..9), tensor(), 1..8),
        options(),
        any::<u64>(),
    );
    let contexts = [context(1), context(4)];
    // That the random checkpoints are of the kinds they should be.
    let (partitioned, sharded, crossing) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&strategy, |(tensors, options, mut seed)| {
        let dir = temp_dir();
        let prefix = dir.path().join("m");
        let mut items: Vec<Item> = tensors
            .iter()
            .flat_map(|(key, tensor)| tensor.items(key))
            .collect();
        for i in (1..items.len()).rev() {
            items.swap(i, mix(&mut seed) % (i + 1));
        }
        let saving = &contexts[mix(&mut seed) % 2];
        let saved = save(&prefix, &items, &options, &mut Call::new(saving)).unwrap();
        prop_assert_eq!(&saved, &prefix);

        let reader = Reader::open(&prefix).unwrap();
        sharded.set(sharded.get() + u32::from(reader.num_shards() > 1));
        let (entries, ended) = list(&reader);
        prop_assert!(ended.is_none());
        let listed: BTreeMap<_, _> = entries
            .into_iter()
            .map(|(key, info)| (key, info.unwrap()))
            .collect();
        prop_assert_eq!(listed.len(), tensors.len());
        for (key, tensor) in &tensors {
            let info = &listed[key];
            prop_assert_eq!(info.dtype, tensor.dtype);
            prop_assert_eq!(&info.shape, &shape(tensor.dims.clone()));
            let cells = items
                .iter()
                .filter(|item| item.key == *key && !item.spec.is_empty());
            let cells = cells.count();
            prop_assert_eq!(info.slices.len(), cells);
            partitioned.set(partitioned.get() + u32::from(cells > 1));
            if cells == 0 {
                let alignment = options.alignment.max(1);
                prop_assert!(info.size == 0 || info.offset % alignment == 0);
            }
            check_view(&reader, key, tensor, cells > 0)?;
        }
        let mut wanted: Vec<(Request, Value)> = tensors
            .iter()
            .flat_map(|(key, tensor)| tensor.requests(key))
            .collect();
        crossing.set(crossing.get() + wanted.len());
        for i in (1..wanted.len()).rev() {
            wanted.swap(i, mix(&mut seed) % (i + 1));
        }
        let requests: Vec<Request> = wanted.iter().map(|(request, _)| request.clone()).collect();
        for (mode, context) in VERIFY_MODES
            .into_iter()
            .flat_map(|mode| contexts.iter().map(move |context| (mode, context)))
        {
            // What is asked for is the same, in whatever shape and order.
            let options = RestoreOptions {
                verify: mode,
                reshape: mix(&mut seed).is_multiple_of(2),
                restore_sequentially: mix(&mut seed).is_multiple_of(2),
                ..RestoreOptions::default()
            };
            let mut requests = requests.clone();
            if options.reshape {
                for request in &mut requests {
                    request.shape = shape([request.shape.num_elements() as usize, 1]);
                }
            }
            let restored = restore_with(&reader, &requests, &options, &mut Call::new(context));
            let restored = restored.unwrap().complete().unwrap();
            for ((request, want), value) in wanted.iter().zip(restored) {
                prop_assert_eq!(&value, want, "{:?} {:?}", request, mode);
            }
        }
        prop_assert!(verify(&reader, saving).unwrap().is_empty());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let counts = (partitioned.get(), sharded.get(), crossing.get());
    assert!(
        counts.0 > 50 && counts.1 > 20 && counts.2 > 500,
        "{counts:?}"
    );
}

/// A view has the tensor's bytes, wherever there can be a view.
fn check_view(
    reader: &Reader,
    key: &[u8],
    tensor: &Tensor,
    partitioned: bool,
) -> Result<(), TestCaseError> {
    let options = ViewOptions {
        allow_unaligned: true,
        no_verify: false,
    };
    let view = reader.view(key, options);
    match &tensor.value {
        Value::Bytes(bytes) if !partitioned => {
            let view = view.unwrap();
            prop_assert_eq!(view.bytes(), &bytes[..]);
        }
        _ => {
            let code = view.unwrap_err().code();
            prop_assert_eq!(code, tfckpt::Code::FailedPrecondition);
        }
    }
    Ok(())
}

#[test]
fn an_alignment_gives_views_without_further_ado() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let items = [
        Item::new("a", DType::Uint8, &[3], Value::Bytes(vec![1, 2, 3])),
        Item::new("b", DType::Double, &[2], Value::Bytes((0..16).collect())),
        Item::new(
            "c",
            DType::Complex128,
            &[1],
            Value::Bytes((16..32).collect()),
        ),
    ];
    for (alignment, views) in [(0, false), (64, true), (4096, true)] {
        let options = SaveOptions {
            alignment,
            ..quick()
        };
        save(&prefix, &items, &options, &mut Call::new(&context(1))).unwrap();
        let reader = Reader::open(&prefix).unwrap();
        for item in &items[1..] {
            let view = reader.view(&item.key, ViewOptions::default());
            assert_eq!(view.is_ok(), views, "{alignment}");
            if let Ok(view) = view {
                assert_eq!(Value::Bytes(view.bytes().to_vec()), item.value);
                assert_eq!(view.bytes().as_ptr().addr() as u64 % alignment, 0);
            }
        }
    }
}

/// Tensors larger than a chunk, whose pieces several threads move at the same time.
#[test]
fn large_tensors_of_all_sizes_around_a_chunk_come_back() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let mut items = Vec::new();
    for (i, size) in [
        0,
        1,
        4095,
        4096,
        4097,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        5 << 20,
    ]
    .into_iter()
    .enumerate()
    {
        let bytes: Vec<u8> = (0..size)
            .map(|at: usize| (at * 31 + at / 257 + i) as u8)
            .collect();
        let key = format!("t{i}");
        items.push(Item::new(
            &key,
            DType::Uint8,
            &[size as i64],
            Value::Bytes(bytes),
        ));
    }
    let long = Value::Strings(vec![vec![7; 3 << 20], Vec::new(), vec![9; 100_000]]);
    items.push(Item::new("strings", DType::String, &[3], long));
    let data_file = dir.path().join("m.data-00000-of-00001");
    let mut written: Option<Vec<u8>> = None;
    for (num_threads, no_sync) in [(1, true), (4, true), (1, false), (4, false)] {
        let context = context(num_threads);
        let options = SaveOptions { no_sync, ..quick() };
        let mut call = Call::new(&context);
        save(&prefix, &items, &options, &mut call).unwrap();
        let past_cache = !no_sync && has_direct_io(&data_file);
        assert_eq!(call.stats.bytes_direct > 0, past_cache);
        assert!(call.stats.bytes_direct <= call.stats.bytes_io);
        let bytes = std::fs::read(&data_file).unwrap();
        assert!(written.get_or_insert_with(|| bytes.clone()) == &bytes);
        let reader = Reader::open(&prefix).unwrap();
        let requests: Vec<Request> = items.iter().map(Item::request).collect();
        for mode in VERIFY_MODES {
            // Of what was synced; the rest stays in memory.
            drop_from_cache(&data_file);
            let options = RestoreOptions {
                verify: mode,
                ..RestoreOptions::default()
            };
            let mut call = Call::new(&context);
            let restored = restore_with(&reader, &requests, &options, &mut call).unwrap();
            let stats = call.stats;
            assert!(stats.bytes_direct <= stats.bytes_cold);
            assert!(stats.bytes_cold <= stats.bytes_io);
            for (value, item) in restored.complete().unwrap().into_iter().zip(&items) {
                assert!(value == item.value, "{}", item.key.escape_ascii());
            }
        }
    }
}

fn has_direct_io(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    options.open(path).is_ok()
}

fn drop_from_cache(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: no memory is passed; the descriptor is open as long as `file` lives.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(refused, 0);
}

#[test]
fn steps_are_appended_as_tensorflow_appends_them() {
    let dir = temp_dir();
    let prefix = dir.path().join("model.ckpt");
    let items = [Item::floats("a", &[1], &[1.0])];
    for (step, pad_step_number, name) in [
        (0, false, "model.ckpt-0"),
        (7, true, "model.ckpt-00000007"),
        (123_456_789, true, "model.ckpt-123456789"),
        (-3, false, "model.ckpt--3"),
    ] {
        let options = SaveOptions {
            global_step: Some(step),
            pad_step_number,
            ..quick()
        };
        let saved = save(&prefix, &items, &options, &mut Call::new(&context(1))).unwrap();
        assert_eq!(saved, dir.path().join(name));
        assert_eq!(Reader::open(&saved).unwrap().num_tensors().unwrap(), 1);
    }
}
