//! Paths of objects: from the root to an object and back.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::ObjectGraph;
use crate::proto::trackable_object_graph::TrackableObject;

/// The part of a variable's state that is its value.
const VARIABLE_VALUE: &str = "VARIABLE_VALUE";

/// How a node was reached first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// Not at all.
    Nowhere,
    /// It is the root.
    Root,
    /// As a child of a node.
    Child { parent: usize, child: usize },
    /// As a variable that a node, which is an optimizer, keeps.
    Slot { optimizer: usize, slot: usize },
}

/// How each node is reached first when the graph is searched as TensorFlow searches it: nearest nodes
/// first, of a node's children in their order; what optimizers keep at the end.
pub(super) fn origins(nodes: &[TrackableObject]) -> Vec<Origin> {
    let mut origins = vec![Origin::Nowhere; nodes.len()];
    let mut queue = VecDeque::new();
    if let Some(root) = origins.first_mut() {
        *root = Origin::Root;
        queue.push_back(0);
    }
    // In the order in which they are found.
    let mut found = Vec::new();
    while let Some(parent) = queue.pop_front() {
        found.push(parent);
        let children = nodes.get(parent).map_or(&[][..], |node| &node.children);
        for (child, reference) in children.iter().enumerate() {
            let node = usize::try_from(reference.node_id).unwrap_or(usize::MAX);
            if let Some(origin @ Origin::Nowhere) = origins.get_mut(node) {
                *origin = Origin::Child { parent, child };
                queue.push_back(node);
            }
        }
    }
    for optimizer in found {
        let slots = nodes
            .get(optimizer)
            .map_or(&[][..], |node| &node.slot_variables);
        for (slot, reference) in slots.iter().enumerate() {
            let [original, variable] = [
                reference.original_variable_node_id,
                reference.slot_variable_node_id,
            ]
            .map(|node| usize::try_from(node).unwrap_or(usize::MAX));
            // The path goes over the variable: it must have one that ends, which another slot's
            // may not.
            let has_path = matches!(
                origins.get(original),
                Some(Origin::Root | Origin::Child { .. })
            );
            if let (true, Some(origin @ Origin::Nowhere)) = (has_path, origins.get_mut(variable)) {
                *origin = Origin::Slot { optimizer, slot };
            }
        }
    }
    origins
}

impl ObjectGraph {
    /// The path of the object that tensor number `i` belongs to, the one that TensorFlow takes; `None`
    /// if nothing leads to the object. The root's is empty.
    pub fn path(&self, i: usize) -> Option<String> {
        self.path_of_node(self.tensors.get(i)?.node)
    }

    /// The key of the value of the variable at `path`, whichever of its paths that is. At the end of
    /// `path` there may be `/.ATTRIBUTES/` and the escaped name of another part of the object's state.
    pub fn key_of_path(&self, path: &str) -> Option<&str> {
        // Neither mark can be part of a name, where a dot is followed by a dot or an S.
        let (path, wanted) = match path.split_once("/.ATTRIBUTES/") {
            Some((path, name)) => (path, name),
            None => (path, VARIABLE_VALUE),
        };
        let node = match path.split_once("/.OPTIMIZER_SLOT/") {
            Some((variable, slot)) => {
                let (optimizer, slot_name) = slot.rsplit_once('/')?;
                self.slot(self.walk(variable)?, self.walk(optimizer)?, slot_name)?
            }
            None => self.walk(path)?,
        };
        let mut attributes = self.nodes.get(node)?.attributes.iter();
        let attribute = attributes.find(|attribute| escape(&attribute.name) == wanted)?;
        Some(&attribute.checkpoint_key)
    }

    /// The node to which the names of `path` lead from the root.
    fn walk(&self, path: &str) -> Option<usize> {
        let mut node = 0;
        if !path.is_empty() {
            for name in path.split('/') {
                let name = unescape(name)?;
                let wanted = (node, &*name);
                let first = self.edges.partition_point(|&edge| self.edge(edge) < wanted);
                let &(parent, child) = self.edges.get(first)?;
                if self.edge((parent, child)) != wanted {
                    return None;
                }
                let reference = self.nodes.get(parent)?.children.get(child)?;
                node = usize::try_from(reference.node_id).ok()?;
            }
        }
        Some(node)
    }

    /// A node and the name of one of its children.
    fn edge(&self, (parent, child): (usize, usize)) -> (usize, &str) {
        let children = self.nodes.get(parent).map(|node| &node.children);
        let reference = children.and_then(|children| children.get(child));
        (parent, reference.map_or("", |child| &child.local_name))
    }

    /// All edges in order of their nodes and names; of equal ones the first child's comes first.
    pub(super) fn sort_edges(&self) -> Vec<(usize, usize)> {
        let nodes = self.nodes.iter().enumerate();
        let edges = nodes
            .flat_map(|(parent, node)| (0..node.children.len()).map(move |child| (parent, child)));
        let mut edges: Vec<(usize, usize)> = edges.collect();
        edges.sort_by_key(|&edge| self.edge(edge));
        edges
    }

    /// The node of what `optimizer` keeps for `variable` under the escaped name `slot_name`.
    fn slot(&self, variable: usize, optimizer: usize, slot_name: &str) -> Option<usize> {
        let mut slots = self.nodes.get(optimizer)?.slot_variables.iter();
        let slot = slots.find(|slot| {
            usize::try_from(slot.original_variable_node_id) == Ok(variable)
                && escape(&slot.slot_name) == slot_name
        })?;
        usize::try_from(slot.slot_variable_node_id).ok()
    }

    fn path_of_node(&self, node: usize) -> Option<String> {
        match *self.origins.get(node)? {
            Origin::Nowhere => None,
            Origin::Slot { optimizer, slot } => {
                let slot = self.nodes.get(optimizer)?.slot_variables.get(slot)?;
                let variable = usize::try_from(slot.original_variable_node_id).ok()?;
                Some(format!(
                    "{}/.OPTIMIZER_SLOT/{}/{}",
                    self.path_of_object(variable)?,
                    self.path_of_object(optimizer)?,
                    escape(&slot.slot_name)
                ))
            }
            Origin::Root | Origin::Child { .. } => self.path_of_object(node),
        }
    }

    /// The path of a node that is reached by children alone.
    fn path_of_object(&self, mut node: usize) -> Option<String> {
        let mut names = Vec::new();
        // Each step leads to a node that was found earlier, so this ends at the root.
        while let Origin::Child { parent, child } = *self.origins.get(node)? {
            let reference = self.nodes.get(parent)?.children.get(child)?;
            names.push(escape(&reference.local_name));
            node = parent;
        }
        names.reverse();
        Some(names.join("/"))
    }
}

/// A name as it stands in a path.
fn escape(name: &str) -> Cow<'_, str> {
    if name.contains(['.', '/']) {
        Cow::Owned(name.replace('.', "..").replace('/', ".S"))
    } else {
        Cow::Borrowed(name)
    }
}

/// The name that stands for `escaped` in a path; `None` if none does.
fn unescape(escaped: &str) -> Option<Cow<'_, str>> {
    let Some((plain, mut rest)) = escaped.split_once('.') else {
        return Some(Cow::Borrowed(escaped));
    };
    let mut name = plain.to_owned();
    loop {
        let (char, after) = match rest.as_bytes().first()? {
            b'.' => ('.', rest.get(1..)?),
            b'S' => ('/', rest.get(1..)?),
            _ => return None,
        };
        name.push(char);
        let Some((plain, next)) = after.split_once('.') else {
            name.push_str(after);
            return Some(Cow::Owned(name));
        };
        name.push_str(plain);
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_escaped_as_tensorflow_escapes_them() {
        for (name, escaped) in [
            ("", ""),
            ("kernel", "kernel"),
            ("a/b", "a.Sb"),
            ("x.y", "x..y"),
            (".S", "..S"),
            ("./", "...S"),
            (".ATTRIBUTES", "..ATTRIBUTES"),
        ] {
            assert_eq!(escape(name), escaped);
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
        for nothing in [".", "a.", "a.b", ".s", "..."] {
            assert_eq!(unescape(nothing), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(name in "[a./Sé]{0,12}") {
            let escaped = escape(&name);
            prop_assert!(!escaped.contains('/'));
            prop_assert_eq!(unescape(&escaped), Some(Cow::Borrowed(&*name)));
        }
    }
}
