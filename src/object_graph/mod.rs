//! The objects of a TF2 checkpoint, and the names that their tensors have there.
//!
//! ```text
//! _CHECKPOINTABLE_OBJECT_GRAPH     a scalar string of the checkpoint: a TrackableObjectGraph
//! net/layers/0/kernel              path of an object: names of the edges from the root, escaped
//! PATH/.ATTRIBUTES/VARIABLE_VALUE  key of the value of a variable
//! PATH/.OPTIMIZER_SLOT/OPTIMIZER/SLOT/.ATTRIBUTES/VARIABLE_VALUE   what an optimizer keeps for it
//! ```
//!
//! A tensor has the key of the first path that TensorFlow found to its object, nearest to the root; an
//! object that is shared has other paths, which lead to the same key here. In a name, `.` is written as
//! `..` and `/` as `.S`, so that a part that begins with one dot is never a name.
//! Sources: `tensorflow/python/trackable/trackable_utils.py`, `tensorflow/python/checkpoint/util.py`.

#![forbid(unsafe_code)]

mod names;
mod path;

use prost::Message;

pub use self::names::NameMismatch;
use self::path::Origin;
use crate::error::{Error, Result};
use crate::proto::TrackableObjectGraph;
use crate::proto::trackable_object_graph::TrackableObject;

/// Key of the tensor that holds the graph; part of the format.
pub const KEY: &[u8] = b"_CHECKPOINTABLE_OBJECT_GRAPH";

/// The most bytes that protobuf reads as one message.
pub const MAX_SIZE: u64 = i32::MAX as u64;

/// The objects of a TF2 checkpoint. Their tensors are numbered in the order in which the checkpoint
/// lists them, which is that of the objects, nearest to the root first, optimizers' variables last.
#[derive(Clone, Debug)]
pub struct ObjectGraph {
    nodes: Vec<TrackableObject>,
    /// How each node was reached first.
    origins: Vec<Origin>,
    tensors: Vec<Place>,
    /// Nodes and indices of their children, in the order of the children's names.
    edges: Vec<(usize, usize)>,
    /// Numbers of tensors in the order of their full names, of each name the last.
    by_name: Vec<usize>,
}

/// Where in the nodes a tensor is.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: usize,
    attribute: usize,
}

/// What a graph says of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectTensor<'a> {
    /// Which part of its object's state it is: `VARIABLE_VALUE` for the value of a variable.
    pub attribute: &'a str,
    /// What `tf.train.Saver` would have called it; empty for what is no variable.
    pub full_name: &'a str,
    /// Its key in the checkpoint. Of a table or an iterator TensorFlow notes only how the keys begin.
    pub key: &'a str,
}

impl ObjectGraph {
    /// Reads a serialized `TrackableObjectGraph`; fields that are not known are skipped.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when the bytes are no such message, or one object refers to another that is not there.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_SIZE {
            return Err(too_large(bytes.len() as u64));
        }
        let graph = TrackableObjectGraph::decode(bytes).map_err(|error| {
            Error::data_loss(format!("the object graph cannot be parsed: {error}"))
        })?;
        let nodes = graph.nodes;
        check_references(&nodes)?;
        let mut tensors = Vec::new();
        for (node, object) in nodes.iter().enumerate() {
            let attributes = 0..object.attributes.len();
            tensors.extend(attributes.map(|attribute| Place { node, attribute }));
        }
        let origins = path::origins(&nodes);
        let mut graph = Self {
            nodes,
            origins,
            tensors,
            edges: Vec::new(),
            by_name: Vec::new(),
        };
        graph.edges = graph.sort_edges();
        graph.by_name = graph.sort_by_name();
        Ok(graph)
    }

    /// Number of objects.
    pub fn num_objects(&self) -> usize {
        self.nodes.len()
    }

    /// Number of tensors that belong to objects; the checkpoint also has the graph itself.
    pub fn num_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Tensor number `i`.
    pub fn tensor(&self, i: usize) -> Option<ObjectTensor<'_>> {
        let place = self.tensors.get(i)?;
        let attributes = &self.nodes.get(place.node)?.attributes;
        let attribute = attributes.get(place.attribute)?;
        Some(ObjectTensor {
            attribute: &attribute.name,
            full_name: &attribute.full_name,
            key: &attribute.checkpoint_key,
        })
    }

    /// All tensors in order.
    pub fn tensors(&self) -> impl Iterator<Item = ObjectTensor<'_>> {
        (0..self.num_tensors()).filter_map(|i| self.tensor(i))
    }
}

/// The error for a graph of more than [`MAX_SIZE`] bytes.
pub fn too_large(size: u64) -> Error {
    Error::data_loss(format!(
        "the object graph is larger than a message may be; size={size} max={MAX_SIZE}"
    ))
}

/// Checks that every object that is referred to is there.
fn check_references(nodes: &[TrackableObject]) -> Result<()> {
    let check = |node: usize, to: i32| match usize::try_from(to) {
        Ok(index) if index < nodes.len() => Ok(()),
        _ => Err(Error::data_loss(format!(
            "an object of the object graph refers to one that is not there; object={node} \
             refers_to={to} num_objects={}",
            nodes.len()
        ))),
    };
    for (node, object) in nodes.iter().enumerate() {
        for child in &object.children {
            check(node, child.node_id)?;
        }
        for slot in &object.slot_variables {
            check(node, slot.original_variable_node_id)?;
            check(node, slot.slot_variable_node_id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
