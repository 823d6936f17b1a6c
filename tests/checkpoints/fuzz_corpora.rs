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
fn the_inputs_of_the_target_v1_pass() {
    run("v1", fuzz_bodies::v1);
}

#[test]
fn the_inputs_of_the_target_sidecar_pass() {
    run("sidecar", fuzz_bodies::sidecar);
}

/// A few bytes changed at random behind checksums that are right.
#[test]
fn mutations_of_files_of_format_v1_pass() {
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 11).unwrap() % below
    };
    for (path, bytes) in corpus("v1") {
        for _ in 0..1000 {
            let mut mutated = bytes.clone();
            for _ in 0..=next(4) {
                // The names and numbers are at the beginning.
                let within = if next(3) == 0 {
                    mutated.len()
                } else {
                    mutated.len().min(400)
                };
                let at = next(within);
                match next(4) {
                    0 => mutated[at] ^= 1 << next(8),
                    1 => mutated[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
                    2 => mutated[at] = mutated[next(within)],
                    _ => mutated[at] = mutated[at].wrapping_add(1),
                }
            }
            if let Err(panic) = std::panic::catch_unwind(|| fuzz_bodies::v1(&mutated)) {
                eprintln!("a mutation of {}: {mutated:02x?}", path.display());
                std::panic::resume_unwind(panic);
            }
        }
    }
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
