//! libtfckpt: TensorFlow checkpoints without TensorFlow.
//!
//! Saves, restores and inspects checkpoints that real TensorFlow reads and wrote: the files of
//! `tf.compat.v1.train.Saver`, `tf.train.Checkpoint` and SavedModel. Link with `-ltfckpt`.
//!
//! Where to start: tfckpt_save, tfckpt_restore and tfckpt_latest_checkpoint are the simple calls; a
//! tfckpt_reader looks into a checkpoint and restores from it more than once; a tfckpt_context
//! limits threads and memory. Wherever options are taken, NULL means the default.
//!
//! ```c
//! float bias[3] = {1, 2, 3};
//! int64_t shape[1] = {3};
//! tfckpt_tensor tensor = TFCKPT_TENSOR_INIT;
//! tensor.key = "dense/bias";
//! tensor.key_size = strlen(tensor.key);
//! tensor.dtype = TFCKPT_DTYPE_FLOAT;
//! tensor.rank = 1;
//! tensor.shape = shape;
//! tensor.data = bias;
//! tensor.size = sizeof bias;
//!
//! tfckpt_error *error = NULL;
//! if (tfckpt_save("/models/a/model.ckpt", &tensor, 1, NULL, NULL, &error) != TFCKPT_OK) {
//!     fprintf(stderr, "%s\n", tfckpt_error_message(error));
//!     tfckpt_error_free(error);
//! }
//! ```
//!
//! Structs: the first field of every struct is its size, so that a program and a library of different
//! versions understand each other. TFCKPT_X_INIT sets it, and everything else to zero, which is the
//! default throughout; languages without macros call tfckpt_x_init. A size that is not set is
//! INVALID_ARGUMENT; a field that this version does not know, and that is not zero, UNIMPLEMENTED.
//!
//! Ownership: what a function gives through a pointer to a pointer is the caller's, to be freed with
//! the function that its documentation names. What a getter returns is borrowed from its object and
//! lives as long. Memory that a call is given must stay valid until it returns, and is not kept; jobs
//! use that of tensors longer, as they say.
//! Every _free function accepts NULL.
//!
//! Arguments: a NULL where something is needed is INVALID_ARGUMENT, never a crash; an array may be
//! NULL if its length is 0. Outputs are written on success only, but for error objects, figures and
//! the codes of a restore. Paths and prefixes are NUL-terminated bytes and are taken literally.
//!
//! Threads: functions that take a const handle may run at the same time on the same handle;
//! functions that take a handle that is not const need it for themselves; different handles are
//! independent. No call depends on which thread makes it. Threads that the library starts end
//! before the call returns, or with the job that they work for, and block all signals.
//!
//! The library never prints, reads no environment variables, installs no signal handlers, and keeps
//! no state between calls but in its handles. A panic inside it is caught: the call returns
//! INTERNAL, and the handle it worked on refuses further calls.
//!
//! # Implementation
//!
//! `include/tfckpt.h` is generated from the files of this folder. Everything here is glue over what
//! `lib.rs` re-exports. Pointers become Rust values in `handle` and nowhere else; every function's
//! body runs behind the panic wall of `wall`.

#![allow(non_camel_case_types, reason = "these are the names of the C header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header's rules are the contract of every function"
)]

mod device_copies;
mod devices;
mod dlpack_restore;
mod dltensor;
mod handle;
mod kept;
mod slab;
mod struct_array;
mod variable;
mod wall;
#[cfg(feature = "test-panics")]
pub use wall::tfckpt_test_panic;

pub mod buffer;
pub mod context;
pub mod cuda;
pub mod dlpack;
pub mod dtype;
pub mod entry;
pub mod error;
pub mod job;
pub mod last_checkpoints;
pub mod latest;
pub mod merge;
pub mod object_graph;
pub mod progress;
pub mod reader;
pub mod restore;
pub mod save;
pub mod saveable;
pub mod saver;
pub mod saver_calls;
pub mod start_job;
pub mod state;
pub mod stats;
pub mod tensor;
pub mod verify;
pub mod version;
pub mod view;
