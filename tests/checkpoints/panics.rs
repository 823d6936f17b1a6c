//! The panic wall: a panic inside of a C function becomes INTERNAL, nothing is printed, and the handle
//! it happened on refuses further calls.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{null, null_mut};

use tfckpt::Call;
use tfckpt::capi::context::{tfckpt_context_free, tfckpt_context_new};
use tfckpt::capi::dlpack::{tfckpt_reader_restore_dlpack, tfckpt_tensor_from_dlpack};
use tfckpt::capi::entry::*;
use tfckpt::capi::error::{
    tfckpt_code, tfckpt_code_name, tfckpt_error, tfckpt_error_code, tfckpt_error_free,
    tfckpt_error_message,
};
use tfckpt::capi::latest::{tfckpt_latest_checkpoint, tfckpt_latest_options_init};
use tfckpt::capi::reader::*;
use tfckpt::capi::restore::tfckpt_restore;
use tfckpt::capi::save::tfckpt_save;
use tfckpt::capi::state::*;
use tfckpt::capi::tensor::{tfckpt_tensor, tfckpt_tensor_init};
use tfckpt::capi::tfckpt_test_panic;
use tfckpt::capi::verify::tfckpt_reader_verify;
use tfckpt::capi::version::{tfckpt_version, tfckpt_version_string};
use tfckpt::capi::view::*;

use super::support::{Item, alone, context, quick, save, temp_dir};

const OK: tfckpt_code = 0;
const INTERNAL: tfckpt_code = 13;

/// Makes `call` panic inside, and checks what C gets to see of it.
fn panics(name: &str, call: impl FnOnce(*mut *mut tfckpt_error) -> tfckpt_code) {
    tfckpt_test_panic();
    assert_internal(name, "panic: asked to; place=", call);
}

fn assert_internal(
    name: &str,
    beginning: &str,
    call: impl FnOnce(*mut *mut tfckpt_error) -> tfckpt_code,
) {
    let mut error = null_mut();
    assert_eq!(call(&raw mut error), INTERNAL, "{name}");
    assert!(!error.is_null(), "{name}");
    // SAFETY: an error object of the library, freed once.
    unsafe {
        assert_eq!(tfckpt_error_code(error), INTERNAL, "{name}");
        let message = CStr::from_ptr(tfckpt_error_message(error))
            .to_str()
            .unwrap();
        assert!(message.starts_with(beginning), "{name}: {message}");
        tfckpt_error_free(error);
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn checkpoint(dir: &Path) -> CString {
    let prefix = dir.join("m");
    let items = [Item::floats("a", &[2], &[1.0, 2.0])];
    let options = tfckpt::SaveOptions {
        update_state: true,
        ..quick()
    };
    save(&prefix, &items, &options, &mut Call::new(&context(1))).unwrap();
    c_string(&prefix)
}

fn open(prefix: &CStr) -> *mut tfckpt_reader {
    let mut reader = null_mut();
    // SAFETY: pointers to live values, or NULL.
    let code = unsafe { tfckpt_reader_open(prefix.as_ptr(), null(), &raw mut reader, null_mut()) };
    assert_eq!(code, OK);
    reader
}

fn every_family_of_functions() {
    let dir = temp_dir();
    let prefix = checkpoint(dir.path());
    let prefix_ptr = prefix.as_ptr();
    let folder = c_string(dir.path());
    let folder_ptr = folder.as_ptr();
    let before = std::fs::read(dir.path().join("checkpoint")).unwrap();
    let (shape, mut data) = ([2i64], [0f32; 2]);
    // SAFETY: in all of this function, pointers are to live values, or NULL where that is allowed.
    unsafe {
        let mut tensor: tfckpt_tensor = std::mem::zeroed();
        assert_eq!(
            tfckpt_tensor_init(&raw mut tensor, size_of::<tfckpt_tensor>()),
            OK
        );
        tensor.key = c"a".as_ptr();
        tensor.key_size = 1;
        tensor.dtype = 1;
        tensor.rank = 1;
        tensor.shape = shape.as_ptr();
        tensor.data = data.as_mut_ptr().cast();
        tensor.size = size_of_val(&data);

        let mut out: *mut c_char = null_mut();
        panics("save", |error| {
            tfckpt_save(
                prefix_ptr,
                &raw const tensor,
                1,
                null(),
                &raw mut out,
                error,
            )
        });
        panics("restore", |error| {
            tfckpt_restore(prefix_ptr, &raw const tensor, 1, null(), null_mut(), error)
        });
        panics("from DLPack", |error| {
            tfckpt_tensor_from_dlpack(null(), 0, &raw mut tensor, error)
        });
        panics("latest", |error| {
            tfckpt_latest_checkpoint(folder_ptr, null_mut(), &raw mut out, error)
        });
        assert!(out.is_null());
        let mut context = null_mut();
        panics("context", |error| {
            tfckpt_context_new(null(), &raw mut context, error)
        });
        assert!(context.is_null());
        let mut reader = null_mut();
        panics("open", |error| {
            tfckpt_reader_open(prefix_ptr, null(), &raw mut reader, error)
        });
        assert!(reader.is_null());
        let mut state = null_mut();
        panics("state", |error| {
            tfckpt_get_checkpoint_state(folder_ptr, null(), &raw mut state, error)
        });
        assert!(state.is_null());
        panics("update", |error| {
            tfckpt_update_checkpoint_state(folder_ptr, prefix_ptr, null(), error)
        });
        let mut number = 7;
        panics("exists", |error| {
            tfckpt_checkpoint_exists(prefix_ptr, &raw mut number, error)
        });
        assert_eq!(number, 7);
        let mut times = [0.5];
        let mut num = 7;
        panics("mtimes", |error| {
            let times = times.as_mut_ptr();
            tfckpt_get_checkpoint_mtimes(&raw const prefix_ptr, 1, times, &raw mut num, error)
        });
        assert_eq!((times, num), ([0.5], 7));
        panics("remove", |error| {
            tfckpt_remove_checkpoint(prefix_ptr, null(), error)
        });

        // Without an error object, and functions that give a value.
        tfckpt_test_panic();
        assert_eq!(
            tfckpt_remove_checkpoint(prefix_ptr, null(), null_mut()),
            INTERNAL
        );
        tfckpt_test_panic();
        assert_eq!(tfckpt_latest_options_init(null_mut(), 0), INTERNAL);
        tfckpt_test_panic();
        assert_eq!(tfckpt_reader_num_shards(null()), 0);
        tfckpt_test_panic();
        assert!(tfckpt_reader_prefix(null()).is_null());
        // Nothing of what a panic interrupted was done.
        assert_eq!(
            std::fs::read(dir.path().join("checkpoint")).unwrap(),
            before
        );
        let code = tfckpt_restore(
            prefix_ptr,
            &raw const tensor,
            1,
            null(),
            null_mut(),
            null_mut(),
        );
        assert_eq!((code, data), (OK, [1.0, 2.0]));
        assert_eq!(tfckpt_context_new(null(), &raw mut context, null_mut()), OK);
        tfckpt_context_free(context);
    }
}

/// Functions that cannot fail must not let a panic pass either.
fn every_function_without_an_error() {
    // SAFETY: no pointers but NULL, which all of these accept.
    unsafe {
        tfckpt_test_panic();
        let name = tfckpt_code_name(INTERNAL);
        assert!(name.is_null() || CStr::from_ptr(name) == c"INTERNAL");
        tfckpt_test_panic();
        tfckpt_version();
        tfckpt_test_panic();
        tfckpt_version_string();
        tfckpt_test_panic();
        assert_eq!(tfckpt_entry_num_slices(null()), 0);
        tfckpt_test_panic();
        assert!(tfckpt_view_data(null()).is_null());
        tfckpt_test_panic();
        tfckpt_reader_free(null_mut());
        tfckpt_error_free(null_mut());
        // Some of these have nothing in them that could panic; the request is used up here.
        tfckpt_reader_num_shards(null());
        assert_eq!(CStr::from_ptr(tfckpt_code_name(INTERNAL)), c"INTERNAL");
    }
}

fn a_handle_is_poisoned() {
    const POISONED: &str = "the handle is unusable since a panic inside an earlier call";
    let dir = temp_dir();
    let prefix = checkpoint(dir.path());
    let mut num = 7;
    let mut damaged = 7;
    let (mut entry, mut entries, mut view) = (null_mut(), null_mut(), null_mut());
    // SAFETY: in all of this function, pointers are to live values, or NULL where that is allowed.
    unsafe {
        let key = c"a".as_ptr();
        type Use<'a> =
            Box<dyn FnMut(*const tfckpt_reader, *mut *mut tfckpt_error) -> tfckpt_code + 'a>;
        let mut uses: Vec<(&str, Use<'_>)> = vec![
            (
                "num",
                Box::new(|reader, error| tfckpt_reader_num_tensors(reader, &raw mut num, error)),
            ),
            (
                "find",
                Box::new(|reader, error| tfckpt_reader_find(reader, key, 1, &raw mut entry, error)),
            ),
            (
                "entries",
                Box::new(|reader, error| tfckpt_reader_entries(reader, &raw mut entries, error)),
            ),
            (
                "restore",
                Box::new(|reader, error| {
                    tfckpt_reader_restore(reader, null(), 0, null(), null_mut(), error)
                }),
            ),
            (
                "restore to DLPack",
                Box::new(|reader, error| {
                    let none = null_mut();
                    tfckpt_reader_restore_dlpack(reader, null(), 0, null(), none, null_mut(), error)
                }),
            ),
            (
                "verify",
                Box::new(|reader, error| {
                    tfckpt_reader_verify(reader, null(), &raw mut damaged, error)
                }),
            ),
            (
                "view",
                Box::new(|reader, error| {
                    tfckpt_reader_view(reader, key, 1, 1, &raw mut view, error)
                }),
            ),
        ];
        for first in 0..uses.len() {
            let reader = open(&prefix);
            let (name, call) = &mut uses[first];
            panics(name, |error| call(reader, error));
            for (name, call) in &mut uses {
                assert_internal(name, POISONED, |error| call(reader, error));
            }
            // Getters that look at nothing that could be broken still work, and it can be freed.
            assert_eq!(
                CStr::from_ptr(tfckpt_reader_prefix(reader)),
                prefix.as_c_str()
            );
            tfckpt_reader_free(reader);
        }
        drop(uses);
        assert!(entry.is_null() && entries.is_null() && view.is_null());
        assert_eq!((num, damaged), (7, 7));

        // An iteration and its reader go together; another reader does not.
        let (reader, other) = (open(&prefix), open(&prefix));
        assert_eq!(
            tfckpt_reader_entries(reader, &raw mut entries, null_mut()),
            OK
        );
        let mut next = null();
        panics("next", |error| {
            tfckpt_entries_next(entries, &raw mut next, error)
        });
        assert_internal("next", POISONED, |error| {
            tfckpt_entries_next(entries, &raw mut next, error)
        });
        assert!(next.is_null());
        tfckpt_entries_free(entries);
        assert_eq!(
            tfckpt_reader_num_tensors(other, &raw mut num, null_mut()),
            OK
        );
        assert_eq!(num, 1);
        tfckpt_reader_free(other);
        tfckpt_reader_free(reader);
    }
}

/// One process, because the request to panic goes to whichever call comes next.
#[test]
fn a_panic_becomes_internal_and_poisons_its_handle_and_prints_nothing() {
    let stderr = alone(
        "panics::a_panic_becomes_internal_and_poisons_its_handle_and_prints_nothing",
        || {
            every_family_of_functions();
            every_function_without_an_error();
            a_handle_is_poisoned();
        },
    );
    assert_eq!(stderr, "", "the library printed");
}
