//! Checkpoints as a whole: the files of a prefix, and the state file that names them.

#![forbid(unsafe_code)]

mod layout;
mod previous;
mod publish;
#[cfg(test)]
mod publish_tests;
mod redirect;
