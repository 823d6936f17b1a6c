//! How much memory calls take: in proportion to the file for a malformed one, within the budget for
//! large tensors.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tfckpt::{
    Call, Context, ContextOptions, DType, Format, Reader, RestoreData, RestoreOptions,
    RestoreTensor, SaveOptions,
};
use tfckpt::{SaveData, SaveTensor, Shape, Verify};

use super::golden_errors;
use super::support::{alone, context, quick, temp_dir};

/// The system's allocator, counting the bytes that are allocated now and at most since [`reset`].
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may exist for a moment.
        grow(new_size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Most bytes allocated at once during `body`, beyond those before. Only of use in a process of its
/// own: other tests allocate too.
pub fn peak(body: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    body();
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn a_malformed_checkpoint_takes_memory_in_proportion_to_its_files() {
    let stderr = alone(
        "memory::a_malformed_checkpoint_takes_memory_in_proportion_to_its_files",
        || {
            let context = context(2);
            let mut failures = Vec::new();
            for case in golden_errors::cases() {
                let files = std::fs::read_dir(&case.folder).unwrap();
                let size: u64 = files
                    .map(|file| file.unwrap().metadata().unwrap().len())
                    .sum();
                let mut sound = true;
                let peak = peak(|| sound = case.exercise(&context));
                if !sound {
                    failures.push(format!("{}: panics", case.name));
                }
                let limit = (16 << 20) + 4 * size as usize;
                if peak > limit {
                    failures.push(format!("{}: {peak} bytes for files of {size}", case.name));
                }
            }
            assert!(failures.is_empty(), "{}", failures.join("\n"));
        },
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_large_tensor_is_saved_and_restored_within_the_budget() {
    const SIZE: usize = 64 << 20;
    const BUDGET: u64 = 2 << 20;
    const LIMIT: usize = (2 << 20) + (4 << 20);
    alone(
        "memory::a_large_tensor_is_saved_and_restored_within_the_budget",
        || {
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            let options = ContextOptions {
                max_host_bytes: BUDGET,
                num_threads: 4,
            };
            let context = Context::new(options).unwrap();
            let source: Vec<u8> = (0..SIZE / 8)
                .flat_map(|i| (i as u64).to_le_bytes())
                .collect();
            let shape = Shape::new([64, 1 << 20]).unwrap();
            for format in [Format::V2, Format::V1] {
                let tensors = [SaveTensor {
                    key: b"large",
                    dtype: DType::Uint8,
                    shape: shape.clone(),
                    slice_spec: "",
                    device_name: "",
                    data: SaveData::Bytes(source.as_slice().into()),
                }];
                let saving = peak(|| {
                    let options = SaveOptions { format, ..quick() };
                    tfckpt::save(&prefix, &tensors, &options, &mut Call::new(&context)).unwrap();
                });
                assert!(saving <= LIMIT, "saving took {saving} bytes");

                let mut restored = vec![0; SIZE];
                for verify in [Verify::Full, Verify::Fetched, Verify::None] {
                    restored.fill(0);
                    let restoring = peak(|| {
                        let mut tensors = [RestoreTensor {
                            key: b"large",
                            dtype: DType::Uint8,
                            shape: shape.clone(),
                            slice_spec: "",
                            device_name: "",
                            data: RestoreData::Bytes(restored.as_mut_slice().into()),
                        }];
                        let reader = Reader::open(&prefix).unwrap();
                        let mut call = Call::new(&context);
                        let outcome = reader
                            .restore(
                                &mut tensors,
                                &RestoreOptions {
                                    verify,
                                    ..RestoreOptions::default()
                                },
                                &mut call,
                            )
                            .unwrap();
                        outcome.into_result().unwrap();
                    });
                    assert!(restored == source);
                    assert!(restoring <= LIMIT, "restoring took {restoring} bytes");
                }

                // A slice that leaves out the last column cannot be read straight into its place.
                let mut columns = vec![0; 64 * ((1 << 20) - 1)];
                let slicing = peak(|| {
                    let mut tensors = [RestoreTensor {
                        key: b"large",
                        dtype: DType::Uint8,
                        shape: Shape::new([64, (1 << 20) - 1]).unwrap(),
                        slice_spec: "64 1048576 -:0,1048575",
                        device_name: "",
                        data: RestoreData::Bytes(columns.as_mut_slice().into()),
                    }];
                    let reader = Reader::open(&prefix).unwrap();
                    let mut call = Call::new(&context);
                    let outcome = reader
                        .restore(&mut tensors, &RestoreOptions::default(), &mut call)
                        .unwrap();
                    outcome.into_result().unwrap();
                });
                let rows = columns
                    .chunks_exact((1 << 20) - 1)
                    .zip(source.chunks_exact(1 << 20));
                for (have, want) in rows {
                    assert!(have == &want[..have.len()]);
                }
                assert!(slicing <= LIMIT, "slicing took {slicing} bytes");

                let damage = peak(|| {
                    let reader = Reader::open(&prefix).unwrap();
                    assert!(
                        super::support::verify(&reader, &context)
                            .unwrap()
                            .is_empty()
                    );
                });
                assert!(damage <= LIMIT, "verifying took {damage} bytes");
            }
        },
    );
}

/// Otherwise the tests above would pass whatever happens.
#[test]
fn the_counter_counts() {
    alone("memory::the_counter_counts", || {
        let counted = peak(|| drop(vec![1u8; 5 << 20]));
        assert!((5 << 20..6 << 20).contains(&counted), "{counted}");
        let counted = peak(|| {
            let mut grown = vec![1u8; 1 << 20];
            grown.reserve_exact(3 << 20);
        });
        assert!(counted >= 4 << 20, "{counted}");
    });
}
