//! What the library holds at most for large tensors: by the count of its allocator, and by the most
//! memory that the process ever had, as the system saw it.

use std::path::Path;

use std::sync::Arc;

use tfckpt::{
    Call, Context, ContextOptions, DType, DestSpan, JobOptions, Progress, Reader, RestoreData,
    RestoreOptions, RestoreTensor, SaveData, SaveOptions, SaveTensor, Shape, SourceSpan,
    StringTensor, Verify,
};

use super::memory::peak;
use super::support::{alone, quick, temp_dir};

const MIB: usize = 1 << 20;

/// What a call may take beside the budget.
const BESIDE: usize = 4 * MIB;

fn context(budget: usize) -> Context {
    let options = ContextOptions {
        max_host_bytes: budget as u64,
        num_threads: 4,
    };
    Context::new(options).unwrap()
}

/// Most memory that this process had since the last [`forget_peak`], in bytes, pages of files that it
/// shares with others left out.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}

/// Lets the system count anew from what the process has now. False where it cannot.
fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Runs `body`, which may take `budget` and [`BESIDE`] by either count.
fn within(budget: usize, what: &str, body: impl FnOnce()) {
    let counted_anew = forget_peak();
    let before = most_memory();
    let allocated = peak(body);
    let resident = most_memory() - before;
    println!("{what}: {allocated} bytes allocated, {resident} resident");
    assert!(
        allocated <= budget + BESIDE,
        "{what}: {allocated} allocated"
    );
    if counted_anew {
        assert!(resident <= budget + BESIDE, "{what}: {resident} resident");
    }
}

fn tensor<'a>(
    key: &'a str,
    dims: &[i64],
    spec: &'a str,
    data: RestoreData<'a>,
) -> RestoreTensor<'a> {
    let dtype = match data {
        RestoreData::Bytes(_) | RestoreData::Device(_) => DType::Uint8,
        RestoreData::Strings(_) | RestoreData::TakeStrings(_) => DType::String,
    };
    RestoreTensor {
        key: key.as_bytes(),
        dtype,
        shape: Shape::new(dims).unwrap(),
        slice_spec: spec,
        device_name: "",
        data,
    }
}

fn restore(
    prefix: &Path,
    tensors: &mut [RestoreTensor<'_>],
    options: &RestoreOptions,
    budget: usize,
) {
    let context = context(budget);
    let mut call = Call::new(&context);
    let outcome = Reader::open(prefix)
        .unwrap()
        .restore(tensors, options, &mut call);
    outcome.unwrap().into_result().unwrap();
    assert!(call.stats.peak_host_bytes <= budget as u64);
}

/// `size` bytes of anonymous memory, all of them touched if `touch` says so.
struct Memory {
    start: *mut libc::c_void,
    size: usize,
}

impl Memory {
    fn new(size: usize, touch: bool) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever the system puts it.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the mapping just made. Only a matter of speed, so it may fail.
        unsafe { libc::madvise(start, size, libc::MADV_HUGEPAGE) };
        let memory = Self { start, size };
        if touch {
            // SAFETY: inside the mapping.
            unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0xa5, size) };
        }
        memory
    }

    fn dest(&mut self) -> DestSpan<'_> {
        // SAFETY: the mapping lives as long as the span, which borrows it for itself.
        unsafe { DestSpan::from_raw_parts(self.start.cast(), self.size) }
    }

    /// Whether all bytes are zero.
    fn is_zero(&self) -> bool {
        // SAFETY: the mapping is readable, and nothing writes to it while `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.size) };
        // Compared in one go: this is not optimised.
        bytes[0] == 0 && bytes[1..] == bytes[..self.size - 1]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` and unmapped only here.
        unsafe { libc::munmap(self.start, self.size) };
    }
}

/// Saves a tensor of zeros, whose pages are all the system's one page of zeros.
fn save_zeros(prefix: &Path, dims: &[i64]) {
    save_zeros_with(prefix, dims, &quick(), 8 * MIB);
}

fn save_zeros_with(prefix: &Path, dims: &[i64], options: &SaveOptions, budget: usize) {
    let shape = Shape::new(dims).unwrap();
    let size = shape.num_elements() as usize;
    let zeros = Memory::new(size, false);
    // SAFETY: the mapping lives during the call; what was never written to is zero.
    let data = unsafe { SourceSpan::from_raw_parts(zeros.start.cast(), size) };
    let tensors = [SaveTensor {
        key: b"large",
        dtype: DType::Uint8,
        shape,
        slice_spec: "",
        device_name: "",
        data: SaveData::Bytes(data),
    }];
    tfckpt::save(prefix, &tensors, options, &mut Call::new(&context(budget))).unwrap();
}

/// Free memory of the machine and free space of the folder, in bytes.
fn room(dir: &Path) -> (usize, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    let output = std::process::Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let free = text.lines().last().unwrap().trim().parse().unwrap();
    (kib.parse::<usize>().unwrap() << 10, free)
}

/// Restores one tensor of `size` bytes within each of the budgets, in bulk or sequentially.
fn restore_zeros(size: usize, cases: &[(usize, bool)]) {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let (memory, space) = room(dir.path());
    // For the file, which is in memory where that is possible, and the destination.
    let fits = memory > 2 * size + (1 << 30) && space > size as u64 + (1 << 20);
    let size = if fits { size } else { 256 * MIB };
    if !fits {
        println!("short of memory or space ({memory}, {space}): 256 MiB only");
    }
    let dims = [size as i64];
    save_zeros(&prefix, &dims);
    for &(budget, restore_sequentially) in cases {
        let options = RestoreOptions {
            restore_sequentially,
            ..RestoreOptions::default()
        };
        let mut destination = Memory::new(size, true);
        within(budget, &format!("{size} bytes within {budget}"), || {
            let data = RestoreData::Bytes(destination.dest());
            let mut tensors = [tensor("large", &dims, "", data)];
            restore(&prefix, &mut tensors, &options, budget);
        });
        assert!(destination.is_zero());
    }
}

#[test]
fn one_tensor_of_4_gib_is_restored_within_8_mib() {
    alone(
        "budget::one_tensor_of_4_gib_is_restored_within_8_mib",
        || restore_zeros(4 << 30, &[(8 * MIB, false)]),
    );
}

#[test]
fn one_large_tensor_is_restored_within_2_mib_in_either_mode() {
    alone(
        "budget::one_large_tensor_is_restored_within_2_mib_in_either_mode",
        || restore_zeros(512 * MIB, &[(2 * MIB, false), (2 * MIB, true)]),
    );
}

#[test]
fn slices_take_no_more_than_the_budget() {
    alone("budget::slices_take_no_more_than_the_budget", || {
        const SIDE: usize = 8 << 10;
        let dir = temp_dir();
        let prefix = dir.path().join("m");
        let bytes: Vec<u8> = (0..SIDE * SIDE).map(|i| (i / 7 + i / SIDE) as u8).collect();
        // Columns in four slices, so that any request has a run per row of each.
        let quarter = SIDE / 4;
        let slices: Vec<(String, Vec<u8>)> = (0..4)
            .map(|i| {
                let rows = bytes.chunks(SIDE);
                let columns = rows.flat_map(|row| &row[i * quarter..(i + 1) * quarter]);
                let spec = format!("{SIDE} {SIDE} -:{},{quarter}", i * quarter);
                (spec, columns.copied().collect())
            })
            .collect();
        let dims = [SIDE as i64, quarter as i64];
        let tensors: Vec<SaveTensor<'_>> = slices
            .iter()
            .map(|(spec, data)| SaveTensor {
                key: b"large",
                dtype: DType::Uint8,
                shape: Shape::new(dims).unwrap(),
                slice_spec: spec,
                device_name: "",
                data: SaveData::Bytes(data.as_slice().into()),
            })
            .collect();
        tfckpt::save(
            &prefix,
            &tensors,
            &quick(),
            &mut Call::new(&context(2 * MIB)),
        )
        .unwrap();

        let cases = [
            // All but a column on each side; two on either side of a cut; one; a block of rows.
            (0, SIDE, 1, SIDE - 2),
            (0, SIDE, quarter - 1, 2),
            (0, SIDE, 5, 1),
            (SIDE / 3, SIDE / 2, 0, SIDE),
        ];
        for (top, rows, left, columns) in cases {
            let spec = format!("{SIDE} {SIDE} {top},{rows}:{left},{columns}");
            let mut slice = vec![0u8; rows * columns];
            for verify in [Verify::Full, Verify::Fetched, Verify::None] {
                for restore_sequentially in [false, true] {
                    slice.fill(0xa5);
                    let options = RestoreOptions {
                        verify,
                        restore_sequentially,
                        ..RestoreOptions::default()
                    };
                    within(2 * MIB, &format!("{spec} {verify:?}"), || {
                        let data = RestoreData::Bytes(slice.as_mut_slice().into());
                        let dims = [rows as i64, columns as i64];
                        restore(
                            &prefix,
                            &mut [tensor("large", &dims, &spec, data)],
                            &options,
                            2 * MIB,
                        );
                    });
                    let want = bytes.chunks(SIDE).skip(top).take(rows);
                    let same = slice
                        .chunks(columns)
                        .zip(want)
                        .all(|(have, want)| have == &want[left..left + columns]);
                    assert!(same, "{spec} {options:?}");
                }
            }
        }
    });
}

#[test]
fn slices_verified_by_chunks_take_no_more_than_the_budget() {
    alone(
        "budget::slices_verified_by_chunks_take_no_more_than_the_budget",
        || {
            const ROWS: usize = 1 << 12;
            const COLUMNS: usize = 64 << 10;
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            let save = SaveOptions {
                chunk_checksums: true,
                ..quick()
            };
            let dims = [ROWS as i64, COLUMNS as i64];
            within(2 * MIB, "a save with a sidecar", || {
                save_zeros_with(&prefix, &dims, &save, 2 * MIB);
            });
            let options = RestoreOptions {
                verify: Verify::Fetched,
                ..RestoreOptions::default()
            };
            // A column, in every chunk; all but a row, most chunks whole; a few bytes.
            let cases = [(0, ROWS, 77, 1), (1, ROWS - 1, 0, COLUMNS), (9, 2, 9, 9)];
            for (top, rows, left, columns) in cases {
                let mut slice = vec![0xa5; rows * columns];
                let spec = format!("{ROWS} {COLUMNS} {top},{rows}:{left},{columns}");
                within(2 * MIB, &spec, || {
                    let data = RestoreData::Bytes(slice.as_mut_slice().into());
                    let dims = [rows as i64, columns as i64];
                    let tensors = &mut [tensor("large", &dims, &spec, data)];
                    restore(&prefix, tensors, &options, 2 * MIB);
                });
                assert!(slice.iter().all(|&byte| byte == 0));
            }
        },
    );
}

#[test]
fn very_many_runs_are_planned_in_little_memory() {
    alone(
        "budget::very_many_runs_are_planned_in_little_memory",
        || {
            // One byte of every 8 KiB: too far apart to be read together.
            const ROWS: usize = 1 << 16;
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            save_zeros(&prefix, &[ROWS as i64, 8 << 10]);
            let spec = format!("{ROWS} 8192 -:77,1");
            let mut column = vec![0xa5; ROWS];
            let options = RestoreOptions {
                verify: Verify::Fetched,
                ..RestoreOptions::default()
            };
            let taken = peak(|| {
                let data = RestoreData::Bytes(column.as_mut_slice().into());
                let dims = [ROWS as i64, 1];
                restore(
                    &prefix,
                    &mut [tensor("large", &dims, &spec, data)],
                    &options,
                    8 * MIB,
                );
            });
            assert!(column.iter().all(|&byte| byte == 0));
            // A buffer, and far less than 16 bytes for each run.
            assert!(taken < MIB, "{taken}");
        },
    );
}

#[test]
fn strings_take_the_budget_beside_what_is_asked_for() {
    alone(
        "budget::strings_take_the_budget_beside_what_is_asked_for",
        || {
            const NUM: usize = 1 << 16;
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            let element = |i: usize| vec![i as u8; 1000 + i % 100];
            let elements: Vec<Vec<u8>> = (0..NUM).map(element).collect();
            let spans: Vec<SourceSpan<'_>> = elements.iter().map(|e| e.as_slice().into()).collect();
            let tensors = [SaveTensor {
                key: b"words",
                dtype: DType::String,
                shape: Shape::new([256, 256]).unwrap(),
                slice_spec: "",
                device_name: "",
                data: SaveData::Strings(spans.into()),
            }];
            within(2 * MIB, "saving strings", || {
                let context = context(2 * MIB);
                let call = &mut Call::new(&context);
                tfckpt::save(&prefix, &tensors, &quick(), call).unwrap();
            });
            drop(tensors);

            // Three rows, and three columns, of 68 MiB.
            let cases = [
                ("256 256 100,3:-", [3, 256], 100 * 256),
                ("256 256 -:100,3", [256, 3], 100),
            ];
            for (spec, dims, first) in cases {
                for verify in [Verify::Full, Verify::None] {
                    let options = RestoreOptions {
                        verify,
                        ..RestoreOptions::default()
                    };
                    let mut strings = StringTensor::default();
                    // What the caller gets is well below what may be taken beside the budget.
                    within(2 * MIB, spec, || {
                        let data = RestoreData::Strings(&mut strings);
                        restore(
                            &prefix,
                            &mut [tensor("words", &dims, spec, data)],
                            &options,
                            2 * MIB,
                        );
                    });
                    assert_eq!(strings.len(), 768);
                    assert_eq!(strings.get(0), Some(elements[first].as_slice()));
                    let last = first + if dims[0] == 3 { 767 } else { 255 * 256 + 2 };
                    assert_eq!(strings.get(767), Some(elements[last].as_slice()));
                }
            }
            within(2 * MIB, "verifying strings", || {
                let mut damage = Vec::new();
                let reader = Reader::open(&prefix).unwrap();
                let context = context(2 * MIB);
                let call = &mut Call::new(&context);
                reader
                    .verify(&mut |error| damage.push(error), call)
                    .unwrap();
                assert!(damage.is_empty());
            });

            // A verification may be cancelled within it, too.
            {
                let context = context(2 * MIB);
                let mut call = Call::new(&context);
                call.progress = Progress::new(Some(Box::new(|update| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    update.bytes_done == 0
                })));
                let reader = Reader::open(&prefix).unwrap();
                let error = reader.verify(&mut |error| panic!("{error}"), &mut call);
                assert_eq!(error.unwrap_err().code(), tfckpt::Code::Cancelled);
                assert!(call.stats.bytes_io < 60 << 20);
            }

            // Within one tensor of strings, progress is told of and may cancel.
            let context = context(2 * MIB);
            for cancel in [false, true] {
                let mut done = Vec::new();
                let mut call = Call::new(&context);
                call.progress = Progress::new(Some(Box::new(|update| {
                    done.push((update.bytes_done, update.bytes_total));
                    // Slower than any disk, so that reports become due.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    !(cancel && update.bytes_done > 0)
                })));
                let mut strings = StringTensor::default();
                let data = RestoreData::Strings(&mut strings);
                let mut tensors = [tensor("words", &[256, 256], "", data)];
                let reader = Reader::open(&prefix).unwrap();
                let outcome = reader.restore(&mut tensors, &RestoreOptions::default(), &mut call);
                let outcome = outcome.unwrap().into_result();
                drop(call);
                assert_eq!(outcome.is_err(), cancel);
                let total = done[0].1;
                let within = done
                    .iter()
                    .filter(|&&(bytes, _)| bytes > 0 && bytes < total);
                assert!(within.count() > 0, "{done:?}");
                assert_eq!(done.last().unwrap().0 == total, !cancel);
                assert_eq!(strings.len(), if cancel { 0 } else { NUM });
            }
        },
    );
}

#[test]
fn copies_of_a_save_in_the_background_take_no_more_than_the_budget() {
    const SIZE: usize = 96 * MIB;
    alone(
        "budget::copies_of_a_save_in_the_background_take_no_more_than_the_budget",
        || {
            let dir = temp_dir();
            let prefix = dir.path().join("m");
            let bytes: &'static [u8] = vec![7; SIZE].leak();
            let dims = [SIZE as i64];
            for budget in [2 * MIB, 24 * MIB] {
                // What is kept for the next save is within it, too, and goes when others need it.
                let context = Arc::new(context(budget));
                within(budget, "a save in the background", || {
                    for _ in 0..2 {
                        let tensors = vec![SaveTensor {
                            key: b"a",
                            dtype: DType::Uint8,
                            shape: Shape::new(dims).unwrap(),
                            slice_spec: "",
                            device_name: "",
                            data: SaveData::Bytes(bytes.into()),
                        }];
                        let job = JobOptions::new(context.clone());
                        let snapshot = tfckpt::Snapshot::Copied;
                        let job = tfckpt::save_async(&prefix, tensors, &quick(), snapshot, job);
                        job.unwrap().wait(None).unwrap().unwrap();
                    }
                    let mut restored = vec![0; MIB];
                    let data = RestoreData::Bytes(restored.as_mut_slice().into());
                    let spec = format!("{SIZE} 5,{MIB}");
                    let mut tensors = [tensor("a", &[MIB as i64], &spec, data)];
                    let mut call = Call::new(&context);
                    let reader = Reader::open(&prefix).unwrap();
                    let options = RestoreOptions::default();
                    let outcome = reader.restore(&mut tensors, &options, &mut call);
                    outcome.unwrap().into_result().unwrap();
                    drop(tensors);
                    assert!(restored.iter().all(|&byte| byte == 7));
                });
            }
        },
    );
}
