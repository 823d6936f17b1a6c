//! Object graph
//!
//! The objects of a checkpoint that tf.train.Checkpoint or tf.saved_model.save wrote. In such a
//! checkpoint a tensor's key is a path through the objects, and not the name of a variable as it is with
//! tf.train.Saver; here keys are found by name and by path. A path is the names that lead from the root
//! to an object, such as "net/layers/0/kernel"; in a name "." is written as ".." and "/" as ".S". What an
//! optimizer keeps for a variable has the path "PATH/.OPTIMIZER_SLOT/PATH_OF_OPTIMIZER/SLOT".
//!
//! Strings that getters return are UTF-8, not NUL-terminated, and borrowed from the graph; their length in
//! bytes goes to *size_out, which may be NULL. The graph does not need the reader any more.

use std::ffi::c_char;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{array, borrow, c_string, check_out, free, into_handle, put, required};
use super::reader::tfckpt_reader;
use super::wall::{guard, guard_handle, guard_value};
use crate::{Call, Error, ObjectGraph, ObjectTensor};

/// The objects of a TF2 checkpoint.
pub struct tfckpt_object_graph(ObjectGraph);

/// Reads the objects of an open checkpoint. *graph_out is the caller's, to be freed with
/// tfckpt_object_graph_free.
///
/// # Errors
///
/// NOT_FOUND if the checkpoint is one of names only, as tf.train.Saver writes; DATA_LOSS when the graph
/// is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_object_graph(
    reader: *const tfckpt_reader,
    graph_out: *mut *mut tfckpt_object_graph,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            check_out(graph_out, "graph_out")?;
            let context = reader.context_for(std::ptr::null())?;
            let graph = reader.reader.object_graph(&mut Call::new(&context))?;
            let graph = graph.ok_or_else(|| {
                let error = Error::not_found("the checkpoint has no object graph");
                error.with_file(reader.reader.prefix())
            })?;
            put(graph_out, into_handle(tfckpt_object_graph(graph)));
            Ok(())
        })
    }
}

/// Number of tensors that belong to objects; 0 for NULL. They are in the order of the objects, nearest to
/// the root first, what optimizers keep last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_num_tensors(
    graph: *const tfckpt_object_graph,
) -> usize {
    guard_value(0, || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(graph) }.map_or(0, |graph| graph.0.num_tensors())
    })
}

/// Key of tensor i in the checkpoint; NULL if there is no such tensor. Of a table or an iterator TensorFlow
/// notes only how the keys begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_key(
    graph: *const tfckpt_object_graph,
    i: usize,
    size_out: *mut usize,
) -> *const c_char {
    // SAFETY: as above.
    unsafe { get(size_out, || tensor(graph, i).map(|tensor| tensor.key)) }
}

/// What tf.train.Saver would have called tensor i; empty for what is no variable, NULL if there is no such
/// tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_full_name(
    graph: *const tfckpt_object_graph,
    i: usize,
    size_out: *mut usize,
) -> *const c_char {
    // SAFETY: as above.
    unsafe { get(size_out, || tensor(graph, i).map(|tensor| tensor.full_name)) }
}

/// Which part of its object's state tensor i is, "VARIABLE_VALUE" for the value of a variable; NULL if
/// there is no such tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_attribute(
    graph: *const tfckpt_object_graph,
    i: usize,
    size_out: *mut usize,
) -> *const c_char {
    // SAFETY: as above.
    unsafe { get(size_out, || tensor(graph, i).map(|tensor| tensor.attribute)) }
}

/// The path of the object that tensor i belongs to: of several the one that TensorFlow takes for the key.
/// *path_out is the caller's, to be freed with tfckpt_string_free; a NUL in a name is shown as \0.
///
/// # Errors
///
/// OUT_OF_RANGE if there is no such tensor; NOT_FOUND if nothing leads from the root to its object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_path(
    graph: *const tfckpt_object_graph,
    i: usize,
    path_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let graph = &required(graph, "graph")?.0;
            check_out(path_out, "path_out")?;
            if i >= graph.num_tensors() {
                let num = graph.num_tensors();
                return Err(Error::out_of_range(format!(
                    "no such tensor; i={i} num_tensors={num}"
                )));
            }
            let path = graph.path(i).ok_or_else(|| {
                Error::not_found(format!("nothing leads to the tensor's object; i={i}"))
            })?;
            put(path_out, c_string(path).into_raw());
            Ok(())
        })
    }
}

/// Key of the variable that tf.train.Saver would have called name, which is name_size bytes long; of
/// several with this name it is the last, as in TensorFlow. NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_key_of_name(
    graph: *const tfckpt_object_graph,
    name: *const c_char,
    name_size: usize,
    size_out: *mut usize,
) -> *const c_char {
    // SAFETY: as above.
    unsafe {
        get(size_out, || {
            let name = array(name.cast(), name_size, "name").ok()?;
            borrow(graph)?.0.key_of_name(name)
        })
    }
}

/// Key of the value of the variable at path, which is path_size bytes long; any path that leads to it will
/// do, and a key does. For another part of an object's state "/.ATTRIBUTES/" and the escaped name of the
/// part follow. NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_key_of_path(
    graph: *const tfckpt_object_graph,
    path: *const c_char,
    path_size: usize,
    size_out: *mut usize,
) -> *const c_char {
    // SAFETY: as above.
    unsafe {
        get(size_out, || {
            let path = array(path.cast(), path_size, "path").ok()?;
            borrow(graph)?
                .0
                .key_of_path(std::str::from_utf8(path).ok()?)
        })
    }
}

/// Frees a graph. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_object_graph_free(graph: *mut tfckpt_object_graph) {
    // SAFETY: NULL or a graph that the caller owns.
    unsafe { free(graph) }
}

/// Tensor `i` of a graph.
///
/// # Safety
///
/// `graph` must be NULL or valid during `'a`.
unsafe fn tensor<'a>(graph: *const tfckpt_object_graph, i: usize) -> Option<ObjectTensor<'a>> {
    // SAFETY: the caller's promise.
    unsafe { borrow(graph) }?.0.tensor(i)
}

/// Runs a getter of a string: its address, or NULL, and its size.
///
/// # Safety
///
/// `size_out` must be NULL or valid for a write.
unsafe fn get<'a>(size_out: *mut usize, read: impl FnOnce() -> Option<&'a str>) -> *const c_char {
    guard_value(std::ptr::null(), || {
        let string = read();
        // SAFETY: the caller's promise.
        unsafe { put(size_out, string.map_or(0, str::len)) };
        string.map_or(std::ptr::null(), |string| string.as_ptr().cast())
    })
}
