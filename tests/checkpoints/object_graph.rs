//! Object graphs and listings of the checkpoints that TensorFlow wrote.

use std::path::{Path, PathBuf};

use tfckpt::{Call, Code, Format, ObjectGraph, Reader, Verify};

use super::support::{Request, Value, context, restore_one, tests_dir};

const KEY: &[u8] = b"_CHECKPOINTABLE_OBJECT_GRAPH";

fn fixture(prefix: &str) -> PathBuf {
    tests_dir().join("fixtures").join(prefix)
}

fn graph(prefix: &Path) -> Option<ObjectGraph> {
    let context = context(1);
    let reader = Reader::open(prefix).unwrap();
    reader.object_graph(&mut Call::new(&context)).unwrap()
}

/// The graph as it is stored.
fn graph_bytes(prefix: &Path) -> Vec<u8> {
    let reader = Reader::open(prefix).unwrap();
    let request = Request::whole(&reader.find(KEY).unwrap());
    match restore_one(&reader, &request, Verify::Full, &context(1)).unwrap() {
        Value::Strings(strings) => strings.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_and_paths_of_every_release_lead_to_keys() {
    for release in ["tf-2.12.1", "tf-2.15.1", "tf-2.21.0"] {
        let graph = graph(&fixture(release).join("object/ckpt-2")).unwrap();
        let value = |path: &str| format!("{path}/.ATTRIBUTES/VARIABLE_VALUE");
        for path in [
            "step",
            "save_counter",
            "net/label",
            "net/layers/1/kernel",
            "net/odd/a.Sb",
            "net/odd/x..y",
        ] {
            assert_eq!(
                graph.key_of_path(path),
                Some(&*value(path)),
                "{release} {path}"
            );
        }
        assert_eq!(graph.key_of_name(b"global_step"), Some(&*value("step")));
        for (i, tensor) in graph.tensors().enumerate() {
            assert_eq!(value(&graph.path(i).unwrap()), tensor.key);
        }
    }
}

#[test]
fn a_saved_model_has_a_graph_if_tf2_wrote_it() {
    for release in ["tf-2.12.1", "tf-2.15.1", "tf-2.21.0"] {
        let graph = graph(&fixture(release).join("saved_model")).unwrap();
        let key = graph.key_of_path("layers/0/bias");
        assert_eq!(key, Some("layers/0/bias/.ATTRIBUTES/VARIABLE_VALUE"));
    }
    let folder = fixture("tf-2.21.0/saved_model_of_a_graph");
    assert!(graph(&folder).is_none());
    let reader = Reader::open(&folder).unwrap();
    assert_eq!(reader.prefix(), folder.join("variables/variables"));
    assert_eq!(reader.find(b"embedding/rows").unwrap().slices.len(), 3);
    assert_eq!(reader.num_tensors().unwrap(), 6);
}

#[test]
fn a_mismatch_says_what_tensorflow_says_of_it() {
    let graph = graph(&fixture("tf-2.21.0/object/ckpt-2")).unwrap();
    let wanted: [&[u8]; 3] = [b"kernel", b"global_step", b"new"];
    let mismatch = graph.mismatch(wanted).unwrap();
    assert_eq!(mismatch.missing, [b"new"]);
    assert_eq!(mismatch.num_matching, 2);
    // Two layers share their variables' names, and three variables have the one that none gave them.
    assert_eq!(mismatch.extra, ["Variable", "bias", "save_counter"]);
    assert_eq!(graph.mismatch([&b"bias"[..], b"kernel"]), None);
}

#[test]
fn every_flipped_bit_of_a_graph_is_data_loss_or_another_graph() {
    let bytes = graph_bytes(&fixture("tf-2.21.0/object/ckpt-2"));
    assert!(bytes.len() > 500);
    let (mut lost, mut other) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match ObjectGraph::parse(&flipped) {
            Ok(graph) => {
                other += 1;
                for (i, tensor) in graph.tensors().enumerate() {
                    assert!(graph.key_of_name(tensor.full_name.as_bytes()).is_some());
                    if let Some(path) = graph.path(i) {
                        graph.key_of_path(&path);
                    }
                }
            }
            Err(error) => {
                lost += 1;
                assert_eq!(error.code(), Code::DataLoss, "{error}");
                assert!(error.message().contains("object graph"), "{error}");
            }
        }
    }
    assert!(lost > 1000 && other > 1000, "{lost} {other}");
}

#[test]
fn the_debug_string_has_a_line_for_each_tensor() {
    let reader = Reader::open(&fixture("tf-2.21.0/saver/model.ckpt-11")).unwrap();
    assert_eq!(reader.format(), Format::V2);
    assert_eq!(
        String::from_utf8(reader.debug_string().unwrap()).unwrap(),
        "dense/bias (DT_FLOAT) [4]\n\
         dense/kernel (DT_FLOAT) [3,4]\n\
         embedding/rows (DT_FLOAT) [7,2], 3 slices: 0,3:0,2 3,2:0,2 5,2:0,2\n\
         global_step (DT_INT64) []\n\
         labels (DT_STRING) [3]\n\
         table (DT_INT32) [5,2]\n"
    );
    let binary = Reader::open(&fixture("tf-2.21.0/keys/binary")).unwrap();
    let text = binary.debug_string().unwrap();
    assert!(
        text.windows(23)
            .any(|w| w == b"nul\0inside (DT_INT32) []"[..23].as_ref())
    );
    assert!(text.ends_with(b"\xff\xff (DT_INT32) []\n"));
}

#[test]
fn the_debug_string_of_a_damaged_index_is_data_loss() {
    for case in ["dtype_99", "many_blocks_middle_crc"] {
        let reader = Reader::open(&tests_dir().join("golden-errors").join(case).join("m")).unwrap();
        let error = reader.debug_string().unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{case}: {error}");
        assert!(
            error.key().is_some() || error.offset().is_some(),
            "{error:?}"
        );
    }
}
