//! How much memory a call takes for each of its tensors, beside the budget.

use tfckpt::capi::dlpack::{
    tfckpt_dlpack_options, tfckpt_dlpack_request, tfckpt_reader_restore_dlpack,
};
use tfckpt::capi::job::{tfckpt_job, tfckpt_job_free, tfckpt_job_wait};
use tfckpt::capi::reader::{tfckpt_reader_free, tfckpt_reader_open};
use tfckpt::capi::restore::{tfckpt_restore, tfckpt_restore_options};
use tfckpt::capi::save::{tfckpt_save, tfckpt_save_options};
use tfckpt::capi::start_job::{tfckpt_restore_async, tfckpt_save_async};
use tfckpt::capi::tensor::{tfckpt_string, tfckpt_tensor};
use tfckpt::{
    Call, Context, ContextOptions, DType, Reader, RestoreData, RestoreOptions, RestoreTensor,
    SaveTensor, Shape, StringTensor,
};

use super::memory::peak;
use super::support::{alone, quick, temp_dir};

const BUDGET: u64 = 2 << 20;

/// Two threads' buffers, and a block of the index.
const BUFFERS: usize = 3 * (256 << 10);

/// Bytes per tensor of `num` that `body` takes at most, beside buffers.
fn per_tensor(num: usize, body: impl FnOnce()) -> usize {
    peak(body).saturating_sub(BUFFERS) / num
}

/// Saves and restores `num` tensors of `size` bytes, and says what each took.
fn measure(num: usize, size: usize) -> [usize; 6] {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = Context::new(ContextOptions {
        max_host_bytes: BUDGET,
        num_threads: 2,
    });
    let context = context.unwrap();
    let keys: Vec<String> = (0..num).map(|i| format!("layer_{i:06}/weights")).collect();
    let source = vec![7u8; num * size];
    let mut restored = vec![0u8; num * size];
    let shape = Shape::new([size as i64]).unwrap();
    let tensors: Vec<SaveTensor<'_>> = keys
        .iter()
        .zip(source.chunks(size))
        .map(|(key, data)| SaveTensor {
            key: key.as_bytes(),
            dtype: DType::Uint8,
            shape: shape.clone(),
            slice_spec: "",
            device_name: "",
            data: tfckpt::SaveData::Bytes(data.into()),
        })
        .collect();
    let saving = per_tensor(num, || {
        tfckpt::save(&prefix, &tensors, &quick(), &mut Call::new(&context)).unwrap();
    });
    drop(tensors);

    let mut tensors: Vec<RestoreTensor<'_>> = keys
        .iter()
        .zip(restored.chunks_mut(size))
        .map(|(key, data)| RestoreTensor {
            key: key.as_bytes(),
            dtype: DType::Uint8,
            shape: shape.clone(),
            slice_spec: "",
            device_name: "",
            data: RestoreData::Bytes(data.into()),
        })
        .collect();
    let reader = Reader::open(&prefix).unwrap();
    let mut restore = |restore_sequentially| {
        let options = RestoreOptions {
            restore_sequentially,
            ..RestoreOptions::default()
        };
        per_tensor(num, || {
            let outcome = reader.restore(&mut tensors, &options, &mut Call::new(&context));
            outcome.unwrap().into_result().unwrap();
        })
    };
    let restoring = restore(false);
    let sequentially = restore(true);
    drop(tensors);
    assert!(restored == source);
    let [c_save, c_restore, save_job, restore_job] = measure_c(&keys, size);
    let restoring = restoring.max(sequentially);
    [saving, restoring, c_save, c_restore, save_job, restore_job]
}

/// What a save and a restore through the C interface take, as calls and as jobs.
fn measure_c(keys: &[String], size: usize) -> [usize; 4] {
    let dir = temp_dir();
    let prefix = dir.path().join("c").display().to_string() + "\0";
    let mut data = vec![3u8; keys.len() * size];
    let dim = size as i64;
    let tensors: Vec<tfckpt_tensor> = keys
        .iter()
        .zip(data.chunks_mut(size))
        .map(|(key, data)| {
            // SAFETY: all zeros is valid: integers and pointers.
            let mut tensor: tfckpt_tensor = unsafe { std::mem::zeroed() };
            tensor.struct_size = size_of::<tfckpt_tensor>();
            tensor.key = key.as_ptr().cast();
            tensor.key_size = key.len();
            tensor.dtype = DType::Uint8 as i32;
            tensor.rank = 1;
            tensor.shape = &raw const dim;
            tensor.data = data.as_mut_ptr().cast();
            tensor.size = size;
            tensor
        })
        .collect();
    // SAFETY: as above.
    let (mut save, mut restore): (tfckpt_save_options, tfckpt_restore_options) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    save.struct_size = size_of::<tfckpt_save_options>();
    save.no_sync = 1;
    save.max_host_bytes = BUDGET;
    restore.struct_size = size_of::<tfckpt_restore_options>();
    restore.max_host_bytes = BUDGET;
    let (first, num) = (tensors.as_ptr(), tensors.len());
    let (path, null) = (prefix.as_ptr().cast(), std::ptr::null_mut::<u8>());
    let saving = per_tensor(num, || {
        // SAFETY: the arguments live during the call, and nothing else uses the tensors' memory.
        let code =
            unsafe { tfckpt_save(path, first, num, &raw const save, null.cast(), null.cast()) };
        assert_eq!(code, 0);
    });
    let restoring = per_tensor(num, || {
        let options = &raw const restore;
        // SAFETY: as above.
        let code = unsafe { tfckpt_restore(path, first, num, options, null.cast(), null.cast()) };
        assert_eq!(code, 0);
    });
    let run = |start: &dyn Fn(*mut *mut tfckpt_job) -> i32| {
        let mut job = std::ptr::null_mut();
        assert_eq!(start(&raw mut job), 0);
        // SAFETY: started just now, and not used afterwards.
        unsafe {
            assert_eq!(tfckpt_job_wait(job, -1, null.cast()), 0);
            tfckpt_job_free(job);
        }
    };
    save.borrow = 1;
    let save_job = per_tensor(num, || {
        run(&|job| {
            // SAFETY: as above; the job has ended when `run` returns.
            unsafe { tfckpt_save_async(path, first, num, &raw const save, job, null.cast()) }
        });
    });
    let restore_job = per_tensor(num, || {
        run(&|job| {
            let options = &raw const restore;
            // SAFETY: as above.
            unsafe { tfckpt_restore_async(path, first, num, options, job, null.cast()) }
        });
    });
    [saving, restoring, save_job, restore_job]
}

#[test]
fn a_call_takes_little_for_each_tensor() {
    alone("bookkeeping::a_call_takes_little_for_each_tensor", || {
        for (num, size) in [(20_000, 8), (3_000, 70_000)] {
            let [save, restore, c_save, c_restore, save_job, restore_job] = measure(num, size);
            let taken = format!(
                "save {save}, restore {restore}, from C {c_save} and {c_restore}, as jobs {save_job} \
                 and {restore_job}"
            );
            println!("{num} tensors of {size} bytes: {taken}");
            assert!(restore <= 100 && c_restore <= 200, "{taken}");
            assert!(save <= 100 && c_save <= 200, "{taken}");
            // A job has copies of the keys on top.
            let most = 200 + "layer_000000/weights".len();
            assert!(save_job <= most && restore_job <= most, "{taken}");
        }
    });
}

/// Bytes of the struct that is handed out for a tensor of one dimension, as allocators round it, and of the
/// pointer to it.
const HANDED_OUT: usize = 192 + 8;

#[test]
fn memory_that_is_handed_out_takes_little_beside_itself() {
    alone(
        "bookkeeping::memory_that_is_handed_out_takes_little_beside_itself",
        || {
            // The tensors' memory is in huge pages, which the system's allocator knows nothing of.
            const NUM: usize = 20_000;
            let dir = temp_dir();
            let keys: Vec<String> = (0..NUM).map(|i| format!("layer_{i:06}/weights")).collect();
            let context = Context::new(ContextOptions::default()).unwrap();
            let tensors: Vec<SaveTensor<'_>> = keys
                .iter()
                .map(|key| SaveTensor {
                    key: key.as_bytes(),
                    dtype: DType::Uint8,
                    shape: Shape::new([8]).unwrap(),
                    slice_spec: "",
                    device_name: "",
                    data: tfckpt::SaveData::Bytes(b"elements"[..].into()),
                })
                .collect();
            let prefix = dir.path().join("m");
            tfckpt::save(&prefix, &tensors, &quick(), &mut Call::new(&context)).unwrap();
            drop(tensors);

            let prefix = prefix.display().to_string() + "\0";
            let requests: Vec<tfckpt_dlpack_request> = keys
                .iter()
                .map(|key| {
                    // SAFETY: all zeros is valid: integers and pointers.
                    let mut request: tfckpt_dlpack_request = unsafe { std::mem::zeroed() };
                    request.struct_size = size_of::<tfckpt_dlpack_request>();
                    request.key = key.as_ptr().cast();
                    request.key_size = key.len();
                    request
                })
                .collect();
            // SAFETY: as above.
            let (mut restore, mut options): (tfckpt_restore_options, tfckpt_dlpack_options) =
                unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
            restore.struct_size = size_of::<tfckpt_restore_options>();
            restore.max_host_bytes = BUDGET;
            options.struct_size = size_of::<tfckpt_dlpack_options>();
            options.restore = &raw const restore;
            let mut out = vec![std::ptr::null_mut(); NUM];
            let null = std::ptr::null_mut::<u8>();
            let taken = per_tensor(NUM, || {
                let mut reader = std::ptr::null_mut();
                // SAFETY: the arguments live during the calls.
                unsafe {
                    let path = prefix.as_ptr().cast();
                    let code = tfckpt_reader_open(path, null.cast(), &raw mut reader, null.cast());
                    assert_eq!(code, 0);
                    let code = tfckpt_reader_restore_dlpack(
                        reader,
                        requests.as_ptr(),
                        NUM,
                        &raw const options,
                        out.as_mut_ptr(),
                        null.cast(),
                        null.cast(),
                    );
                    assert_eq!(code, 0);
                    tfckpt_reader_free(reader);
                }
            });
            println!("{taken} bytes for each tensor");
            assert!(taken <= 200 + HANDED_OUT, "{taken}");
            let given_back = peak(|| {
                for managed in out {
                    // SAFETY: handed out above, with what its elements point to and the function that
                    // frees it, which is called once.
                    unsafe {
                        let managed = managed.cast::<[usize; 10]>();
                        let data = (*managed)[4] as *const [u8; 8];
                        assert_eq!(&*data, b"elements");
                        let delete: unsafe extern "C" fn(*mut [usize; 10]) =
                            std::mem::transmute((*managed)[2]);
                        delete(managed);
                    }
                }
            });
            assert!(given_back < 1000, "{given_back}");
        },
    );
}

#[test]
fn an_array_of_strings_is_saved_from_where_it_is() {
    alone(
        "bookkeeping::an_array_of_strings_is_saved_from_where_it_is",
        || {
            const NUM: usize = 300_000;
            let dir = temp_dir();
            let prefix = dir.path().join("c").display().to_string() + "\0";
            let strings = vec![
                tfckpt_string {
                    data: b"abc".as_ptr().cast(),
                    size: 3,
                };
                NUM
            ];
            let dim = NUM as i64;
            // SAFETY: all zeros is valid: integers and pointers.
            let (mut tensor, mut save): (tfckpt_tensor, tfckpt_save_options) =
                unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
            tensor.struct_size = size_of::<tfckpt_tensor>();
            tensor.key = c"words".as_ptr();
            tensor.key_size = 5;
            tensor.dtype = DType::String as i32;
            tensor.rank = 1;
            tensor.shape = &raw const dim;
            tensor.data = strings.as_ptr().cast_mut().cast();
            tensor.size = NUM * size_of::<tfckpt_string>();
            save.struct_size = size_of::<tfckpt_save_options>();
            save.no_sync = 1;
            save.max_host_bytes = BUDGET;
            let (path, options) = (prefix.as_ptr().cast(), &raw const save);
            let null = std::ptr::null_mut::<u8>();
            let taken = peak(|| {
                // SAFETY: the arguments live during the call.
                let code = unsafe {
                    tfckpt_save(
                        path,
                        &raw const tensor,
                        1,
                        options,
                        null.cast(),
                        null.cast(),
                    )
                };
                assert_eq!(code, 0);
            });
            assert!(taken < BUDGET as usize, "{taken}");
            let reader = Reader::open(&dir.path().join("c")).unwrap();
            let mut restored = StringTensor::default();
            let mut tensors = [RestoreTensor {
                key: b"words",
                dtype: DType::String,
                shape: Shape::new([dim]).unwrap(),
                slice_spec: "",
                device_name: "",
                data: RestoreData::Strings(&mut restored),
            }];
            let context = Context::new(ContextOptions::default()).unwrap();
            let options = RestoreOptions::default();
            let outcome = reader.restore(&mut tensors, &options, &mut Call::new(&context));
            outcome.unwrap().into_result().unwrap();
            assert_eq!(restored.len(), NUM);
            assert!(restored.iter().all(|element| element == b"abc"));
        },
    );
}
