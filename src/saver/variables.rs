//! What a saver saves and restores.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::canonical_device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;

/// The description of one tensor of a saver.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name in the checkpoint: any bytes, at least one.
    pub key: Vec<u8>,
    /// Name of the variable, by which it is recognised when it is given twice; empty if it has none.
    pub variable_name: Vec<u8>,
    /// Data type.
    pub dtype: DType,
    /// Shape, row-major; `None` if only a save or the checkpoint can tell, as for a table that grows.
    pub shape: Option<Shape>,
    /// TensorFlow's `shape_and_slice`, such as `4 6 0,2:-`; empty for a whole tensor.
    pub slice_spec: String,
    /// TensorFlow's device string, empty if it has none.
    pub device_name: String,
}

/// Tensors that are saved and restored together: a variable, or what TensorFlow calls a
/// `SaveableObject`.
#[derive(Clone, Debug)]
pub struct Saveable {
    /// Decides the order; for a variable its key.
    pub name: Vec<u8>,
    /// Its tensors, in the order in which they are saved.
    pub variables: Vec<Variable>,
}

impl From<Variable> for Saveable {
    fn from(variable: Variable) -> Self {
        Self {
            name: variable.key.clone(),
            variables: vec![variable],
        }
    }
}

/// The tensors of a saver, known to fit together.
#[derive(Debug, Default)]
pub struct VariableList {
    /// In the order in which they were given.
    variables: Vec<Variable>,
    /// The same in the order in which they are saved: by the names of the saveables.
    order: Vec<usize>,
    /// For each saveable its name and its part of `variables`.
    saveables: Vec<(Vec<u8>, std::ops::Range<usize>)>,
}

impl VariableList {
    /// Checks the names and puts them in order.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text for names given twice.
    pub fn new(saveables: Vec<Saveable>) -> Result<Self> {
        let mut list = Self::default();
        for Saveable { name, variables } in saveables {
            let start = list.variables.len();
            list.variables.extend(variables);
            list.saveables.push((name, start..list.variables.len()));
        }
        // Stable: slices of one variable stay in their order.
        list.saveables.sort_by(|(a, _), (b, _)| a.cmp(b));
        let order = list.saveables.iter().flat_map(|(_, range)| range.clone());
        list.order = order.collect();
        list.check_keys()?;
        list.check_variables()?;
        Ok(list)
    }

    /// The tensors in the order in which they were given.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The places of the tensors in the order in which they are saved and restored.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// The tensors in saver order, each with its place in the order given.
    fn ordered(&self) -> impl Iterator<Item = (usize, &Variable)> {
        let variable = |&index: &usize| Some((index, self.variables.get(index)?));
        self.order.iter().filter_map(variable)
    }

    /// Several slices may have one key, anything else may not.
    fn check_keys(&self) -> Result<()> {
        let mut seen: HashMap<&[u8], bool> = HashMap::with_capacity(self.variables.len());
        for (
            index,
            Variable {
                key, slice_spec, ..
            },
        ) in self.ordered()
        {
            let sliced = !slice_spec.is_empty();
            let text = match seen.insert(key, sliced) {
                None => continue,
                Some(true) if sliced => continue,
                Some(false) if !sliced => "At least two variables have the same name",
                Some(_) => "Mixing slices and non-slices with the same name",
            };
            let name = String::from_utf8_lossy(key);
            return Err(Error::invalid_argument(format!("{text}: {name}"))
                .with_tensor_index(index)
                .with_key(key));
        }
        Ok(())
    }

    /// One variable must not have two keys: restoring it twice would leave the second value.
    fn check_variables(&self) -> Result<()> {
        let mut seen: HashSet<&[u8]> = HashSet::new();
        for (
            index,
            Variable {
                key, variable_name, ..
            },
        ) in self.ordered()
        {
            if !variable_name.is_empty() && !seen.insert(variable_name) {
                let name = String::from_utf8_lossy(key);
                return Err(Error::invalid_argument(format!(
                    "The same saveable will be restored with two names: {name}"
                ))
                .with_tensor_index(index)
                .with_key(key));
            }
        }
        Ok(())
    }

    /// Checks that a saver which shards by device can do so.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text for a device string that makes no sense, and for a
    /// saveable whose tensors are on several devices.
    pub fn check_devices(&self) -> Result<()> {
        for (name, range) in &self.saveables {
            let mut devices = HashSet::new();
            for index in range.clone() {
                let Some(Variable {
                    key, device_name, ..
                }) = self.variables.get(index)
                else {
                    continue;
                };
                let device = canonical_device(device_name)
                    .map_err(|error| error.with_tensor_index(index).with_key(key))?;
                devices.insert(device);
            }
            if devices.len() > 1 {
                return Err(Error::invalid_argument(format!(
                    "All tensors of a saveable object must be on the same device: {}",
                    String::from_utf8_lossy(name)
                ))
                .with_key(name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(key: &str) -> Variable {
        Variable {
            key: key.into(),
            variable_name: Vec::new(),
            dtype: DType::Float,
            shape: Some(Shape::new([2]).unwrap()),
            slice_spec: String::new(),
            device_name: String::new(),
        }
    }

    fn sliced(key: &str, slice_spec: &str) -> Variable {
        Variable {
            slice_spec: slice_spec.into(),
            ..variable(key)
        }
    }

    fn message(variables: Vec<Variable>) -> String {
        let saveables = variables.into_iter().map(Saveable::from).collect();
        VariableList::new(saveables)
            .unwrap_err()
            .message()
            .to_owned()
    }

    #[test]
    fn tensors_are_saved_in_the_order_of_their_saveables_names() {
        let table = Saveable {
            name: b"b".to_vec(),
            variables: vec![variable("b-values"), variable("b-keys")],
        };
        let saveables = vec![
            variable("c").into(),
            table,
            sliced("a", "4 0,2").into(),
            sliced("a", "4 2,2").into(),
        ];
        let list = VariableList::new(saveables).unwrap();
        assert_eq!(list.order(), [3, 4, 1, 2, 0]);
    }

    #[test]
    fn names_given_twice_are_refused_with_tensorflows_text() {
        for (variables, text) in [
            (
                vec![variable("a"), variable("a")],
                "At least two variables have the same name: a",
            ),
            (
                vec![variable("a"), sliced("a", "4 0,2")],
                "Mixing slices and non-slices with the same name: a",
            ),
            (
                vec![sliced("a", "4 0,2"), variable("a")],
                "Mixing slices and non-slices with the same name: a",
            ),
        ] {
            assert_eq!(message(variables), text);
        }
        let named = |key: &str, name: &str| Variable {
            variable_name: name.into(),
            ..variable(key)
        };
        assert_eq!(
            message(vec![named("y", "v"), named("x", "v")]),
            "The same saveable will be restored with two names: y"
        );
    }

    #[test]
    fn the_tensors_of_one_saveable_share_a_device() {
        let on = |key: &str, device: &str| Variable {
            device_name: device.into(),
            ..variable(key)
        };
        let list = |devices: [&str; 2]| {
            let variables = vec![on("k", devices[0]), on("v", devices[1])];
            let name = b"table".to_vec();
            VariableList::new(vec![Saveable { name, variables }]).unwrap()
        };
        list(["/cpu:1", "/device:CPU:1"]).check_devices().unwrap();
        assert_eq!(
            list(["/cpu:1", "/cpu:0"])
                .check_devices()
                .unwrap_err()
                .message(),
            "All tensors of a saveable object must be on the same device: table"
        );
        list(["/cpu:1", "/what:0"]).check_devices().unwrap_err();
    }
}
