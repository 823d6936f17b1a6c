use super::*;
use crate::error::Code;
use crate::proto::trackable_object_graph::trackable_object::{
    ObjectReference, SerializedTensor, SlotVariableReference,
};

fn object(children: &[(i32, &str)]) -> TrackableObject {
    let child = |&(node_id, local_name): &(i32, &str)| ObjectReference {
        node_id,
        local_name: local_name.to_owned(),
    };
    TrackableObject {
        children: children.iter().map(child).collect(),
        ..TrackableObject::default()
    }
}

fn variable(full_name: &str, checkpoint_key: &str) -> TrackableObject {
    TrackableObject {
        attributes: vec![SerializedTensor {
            name: "VARIABLE_VALUE".to_owned(),
            full_name: full_name.to_owned(),
            checkpoint_key: checkpoint_key.to_owned(),
        }],
        ..TrackableObject::default()
    }
}

fn encode(nodes: Vec<TrackableObject>) -> Vec<u8> {
    TrackableObjectGraph { nodes }.encode_to_vec()
}

fn parse(nodes: Vec<TrackableObject>) -> ObjectGraph {
    ObjectGraph::parse(&encode(nodes)).unwrap()
}

/// A root with a dictionary and a layer that share a variable, and an optimizer that has a slot for it;
/// the dictionary also leads back to the root.
fn sample() -> Vec<TrackableObject> {
    let mut optimizer = object(&[]);
    optimizer.slot_variables = vec![SlotVariableReference {
        original_variable_node_id: 4,
        slot_name: "m/1".to_owned(),
        slot_variable_node_id: 5,
    }];
    vec![
        object(&[(1, "dict"), (2, "layer"), (3, "optimizer")]),
        object(&[(0, "up"), (4, "a/b.c")]),
        object(&[(4, "kernel")]),
        optimizer,
        variable("w", "K4"),
        variable("w/m", "K5"),
    ]
}

#[test]
fn every_path_of_an_object_leads_to_its_key() {
    let graph = parse(sample());
    assert_eq!((graph.num_objects(), graph.num_tensors()), (6, 2));
    for (path, key) in [
        ("dict/a.Sb..c", Some("K4")),
        ("layer/kernel", Some("K4")),
        ("dict/up/dict/up/layer/kernel", Some("K4")),
        ("layer/kernel/.ATTRIBUTES/VARIABLE_VALUE", Some("K4")),
        ("layer/kernel/.ATTRIBUTES/py_state", None),
        ("layer/kernel/.OPTIMIZER_SLOT/optimizer/m.S1", Some("K5")),
        (
            "dict/a.Sb..c/.OPTIMIZER_SLOT/dict/up/optimizer/m.S1/.ATTRIBUTES/VARIABLE_VALUE",
            Some("K5"),
        ),
        ("layer/kernel/.OPTIMIZER_SLOT/optimizer/m/1", None),
        ("layer/kernel/.OPTIMIZER_SLOT/optimizer", None),
        ("layer/kernel/.OPTIMIZER_SLOT/layer/m.S1", None),
        ("dict/a/b.c", None),
        ("dict", None),
        ("", None),
        ("layer/", None),
        ("layer//kernel", None),
        ("nothing", None),
        ("/.ATTRIBUTES/VARIABLE_VALUE", None),
    ] {
        assert_eq!(graph.key_of_path(path), key, "{path}");
    }
}

#[test]
fn a_tensor_has_the_path_that_is_found_first() {
    let graph = parse(sample());
    assert_eq!(graph.path(0).as_deref(), Some("dict/a.Sb..c"));
    assert_eq!(
        graph.path(1).as_deref(),
        Some("dict/a.Sb..c/.OPTIMIZER_SLOT/optimizer/m.S1")
    );
    assert_eq!(graph.path(2), None);
}

#[test]
fn the_nearest_path_counts_whatever_the_order_of_the_nodes() {
    let graph = parse(vec![
        object(&[(3, "far"), (1, "near")]),
        object(&[(2, "v")]),
        variable("v", "K"),
        object(&[(4, "far")]),
        object(&[(2, "v")]),
    ]);
    assert_eq!(graph.path(0).as_deref(), Some("near/v"));
    assert_eq!(graph.key_of_path("far/far/v"), Some("K"));
}

#[test]
fn an_object_to_which_nothing_leads_has_no_path() {
    let mut lost = object(&[]);
    // Two slots for each other's variables, neither of which is reached: no path ends.
    lost.slot_variables = vec![
        SlotVariableReference {
            original_variable_node_id: 2,
            slot_name: "s".to_owned(),
            slot_variable_node_id: 1,
        },
        SlotVariableReference {
            original_variable_node_id: 1,
            slot_name: "s".to_owned(),
            slot_variable_node_id: 2,
        },
    ];
    let graph = parse(vec![lost, variable("a", "A"), variable("b", "B")]);
    assert_eq!((graph.path(0), graph.path(1)), (None, None));
    assert_eq!(graph.key_of_name(b"b"), Some("B"));
}

#[test]
fn the_root_may_be_a_variable() {
    let graph = parse(vec![variable("v", "/.ATTRIBUTES/VARIABLE_VALUE")]);
    assert_eq!(graph.path(0).as_deref(), Some(""));
    for path in ["", "/.ATTRIBUTES/VARIABLE_VALUE"] {
        assert_eq!(
            graph.key_of_path(path),
            Some("/.ATTRIBUTES/VARIABLE_VALUE"),
            "{path}"
        );
    }
}

#[test]
fn of_two_tensors_with_one_name_the_last_is_found() {
    let mut twice = variable("w", "first");
    twice.attributes.extend(variable("w", "second").attributes);
    let graph = parse(vec![
        object(&[]),
        twice,
        variable("", "state"),
        variable("b", "B"),
        variable("w", "third"),
    ]);
    assert_eq!(graph.key_of_name(b"w"), Some("third"));
    assert_eq!(graph.key_of_name(b""), Some("state"));
    assert_eq!(graph.key_of_name(b"x"), None);
    assert_eq!(graph.key_of_name(b"\xff"), None);
    let names: Vec<_> = graph.names().map(|t| (t.full_name, t.key)).collect();
    assert_eq!(names, [("", "state"), ("b", "B"), ("w", "third")]);
    assert_eq!(graph.tensors().count(), 5);
}

#[test]
fn a_mismatch_lists_both_sides() {
    let graph = parse(vec![
        variable("", "S"),
        variable("b", "B"),
        variable("a", "A"),
        variable("z", "Z"),
    ]);
    let names =
        |names: &[&'static str]| names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>();
    assert_eq!(graph.mismatch(names(&["a", "b"])), None);
    assert_eq!(graph.mismatch(names(&[])), None);
    assert_eq!(
        graph.mismatch(names(&["y", "a", "x", "a", "x"])),
        Some(NameMismatch {
            missing: vec![b"x".to_vec(), b"y".to_vec()],
            extra: vec![String::new(), "b".to_owned(), "z".to_owned()],
            num_matching: 1,
        })
    );
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 4, the registered saver, and 5, a wrapped bool, of an object; field 9 of the graph.
    let bytes = b"\x0a\x0b\x22\x05\x0a\x03abc\x2a\x02\x08\x01\x48\x07";
    let graph = ObjectGraph::parse(bytes).unwrap();
    assert_eq!((graph.num_objects(), graph.num_tensors()), (1, 0));
    assert_eq!(ObjectGraph::parse(b"").unwrap().num_objects(), 0);
    assert_eq!(ObjectGraph::parse(b"").unwrap().key_of_path(""), None);
}

#[test]
fn a_reference_to_nowhere_is_data_loss() {
    for (bad, shown) in [
        (6, "refers_to=6"),
        (-1, "refers_to=-1"),
        (i32::MAX, "refers_to=2147483647"),
    ] {
        let mut child = sample();
        child[1].children[0].node_id = bad;
        let mut original = sample();
        original[3].slot_variables[0].original_variable_node_id = bad;
        let mut slot = sample();
        slot[3].slot_variables[0].slot_variable_node_id = bad;
        for nodes in [child, original, slot] {
            let error = ObjectGraph::parse(&encode(nodes)).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert!(error.message().contains(shown), "{error}");
            assert!(error.message().contains("num_objects=6"), "{error}");
        }
    }
}

#[test]
fn what_is_no_message_is_data_loss() {
    let bytes = encode(sample());
    for cut in 0..bytes.len() {
        match ObjectGraph::parse(&bytes[..cut]) {
            // Between two objects.
            Ok(graph) => assert!(graph.num_objects() < 6),
            Err(error) => assert_eq!(error.code(), Code::DataLoss, "{error}"),
        }
    }
    let error = ObjectGraph::parse(b"\x0a\x04\x0a\x02\x12\x05").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("the object graph cannot be parsed: "),
        "{error}"
    );
}

/// Asks everything of a graph.
fn ask(graph: &ObjectGraph) {
    assert_eq!(graph.tensors().count(), graph.num_tensors());
    for (i, tensor) in graph.tensors().enumerate() {
        assert!(graph.key_of_name(tensor.full_name.as_bytes()).is_some());
        let Some(path) = graph.path(i) else {
            continue;
        };
        // Names may have become equal, so that the path leads elsewhere, but it leads nowhere else
        // than to an object.
        graph.key_of_path(&path);
    }
}

#[test]
fn every_flipped_bit_is_data_loss_or_another_graph() {
    let bytes = encode(sample());
    let (mut lost, mut other) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match ObjectGraph::parse(&flipped) {
            Ok(graph) => {
                ask(&graph);
                other += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Code::DataLoss, "{error}");
                lost += 1;
            }
        }
    }
    assert!(lost > 100 && other > 100, "{lost} {other}");
}

#[test]
fn a_long_chain_and_a_ring_end() {
    let num = 20_000;
    let mut nodes: Vec<TrackableObject> = (1..num).map(|next| object(&[(next, "n")])).collect();
    nodes.push(object(&[(0, "n")]));
    nodes[19_999].attributes = variable("v", "K").attributes;
    let graph = parse(nodes);
    let path = graph.path(0).unwrap();
    assert_eq!(path.len(), 2 * 19_999 - 1);
    assert_eq!(graph.key_of_path(&path), Some("K"));
    assert_eq!(graph.key_of_path(&format!("{path}/n/{path}")), Some("K"));
}
