//! The inputs of the fuzz targets, run without a fuzzer.

use std::path::PathBuf;

use super::fuzz_bodies;
use super::golden_errors;
use super::support::tests_dir;

/// All inputs of a target.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = tests_dir().join("fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 10, "{target}");
    paths
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

fn run(target: &str, body: fn(&[u8])) {
    for (path, bytes) in corpus(target) {
        if let Err(panic) = std::panic::catch_unwind(|| body(&bytes)) {
            eprintln!("input: {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_inputs_of_the_target_index_pass() {
    run("index", fuzz_bodies::index);
}

#[test]
fn the_inputs_of_the_target_checkpoint_state_pass() {
    run("checkpoint_state", fuzz_bodies::checkpoint_state);
}

#[test]
fn the_inputs_of_the_target_slice_spec_pass() {
    run("slice_spec", fuzz_bodies::slice_spec);
}

#[test]
fn the_inputs_of_the_target_object_graph_pass() {
    run("object_graph", fuzz_bodies::object_graph);
}

/// With their checksums put right, the malformed checkpoints are malformed in deeper places.
#[test]
fn the_indexes_of_the_malformed_checkpoints_pass_as_inputs() {
    let mut num = 0;
    for case in golden_errors::cases() {
        if let Ok(bytes) = std::fs::read(case.folder.join("m.index")) {
            fuzz_bodies::index(&bytes);
            num += 1;
        }
    }
    assert!(num > 250, "{num}");
}

/// A fuzzer for the poor: a few thousand changed bytes in a small index, always the same ones.
#[test]
fn a_small_index_with_any_byte_changed_passes_as_input() {
    let index = tests_dir().join("golden-errors/slices_sound/m.index");
    let index = std::fs::read(index).unwrap();
    for at in 0..index.len() {
        for change in [0x01, 0x80, 0xff, index[at], index[at] ^ 0x7f] {
            let mut changed = index.clone();
            changed[at] ^= change;
            fuzz_bodies::index(&changed);
        }
    }
}
