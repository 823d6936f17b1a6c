//! Restoring the variables of a saver, by their names or through an object graph.

use std::path::Path;

use super::Saver;
use super::variables::{Variable, VariableList};
use crate::checkpoint::{
    Format, Reader, RestoreData, RestoreOptions, RestoreTensor, checkpoint_exists,
};
use crate::error::{Code, Error, Result};
use crate::object_graph::ObjectGraph;
use crate::shape::Shape;
use crate::transfer::Call;

impl Saver {
    /// Restores all variables from the checkpoint at `save_path`, of whichever format. Names, dtypes and
    /// shapes of all are compared before the first byte is written.
    /// `options` adds to what the saver was made with; `keep_going` has no meaning here.
    ///
    /// `destinations` says where the elements of every variable go, in the order in which the
    /// variables were given. It is asked once it is known that all names are there, and is given the
    /// variables' shapes, of one without a shape of its own the stored one. If names are missing and the checkpoint is one of
    /// `tf.train.Checkpoint`, its object graph says under which keys they are.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT when there is no checkpoint; NOT_FOUND for a name that is missing and
    /// INVALID_ARGUMENT for a dtype or shape that differs, both with TensorFlow's words before them;
    /// FAILED_PRECONDITION before the saver is built; the errors of a restore.
    pub fn restore<'a>(
        &self,
        save_path: &Path,
        options: &RestoreOptions,
        destinations: impl FnOnce(&[Shape], &mut Call<'_>) -> Result<Vec<RestoreData<'a>>>,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let built = self.built("restore")?;
        if built.variables.is_empty() {
            return Ok(());
        }
        if !checkpoint_exists(save_path)? {
            return Err(Error::invalid_argument(format!(
                "The passed save_path is not a valid checkpoint: {}",
                save_path.display()
            ))
            .with_file(save_path));
        }
        let options = RestoreOptions {
            keep_going: false,
            reshape: options.reshape || self.options.reshape,
            restore_sequentially: options.restore_sequentially || self.options.restore_sequentially,
            ..*options
        };
        let restore = Restore {
            reader: &Reader::open(save_path).map_err(explain)?,
            variables: &built.variables,
            options: &options,
        };
        restore.run(destinations, call)
    }
}

/// One restore, its checkpoint open.
struct Restore<'r> {
    reader: &'r Reader,
    variables: &'r VariableList,
    options: &'r RestoreOptions,
}

impl Restore<'_> {
    fn run<'a>(
        &self,
        destinations: impl FnOnce(&[Shape], &mut Call<'_>) -> Result<Vec<RestoreData<'a>>>,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let own: Vec<&[u8]> = self
            .ordered()
            .map(|variable| variable.key.as_slice())
            .collect();
        let missing = match self.find(&own) {
            Ok(shapes) => return self.read(&own, shapes, destinations, call).map_err(explain),
            Err(error) if error.code() == Code::NotFound => error,
            Err(error) => return Err(explain(error)),
        };
        let Some(graph) = self.reader.object_graph(call)? else {
            return Err(explain(missing));
        };
        let keys = keys_by_name(&graph, &own)?;
        let shapes = self.find(&keys).map_err(explain)?;
        self.read(&keys, shapes, destinations, call)
            .map_err(explain)
    }

    /// The variables in the order in which they are restored.
    fn ordered(&self) -> impl Iterator<Item = &Variable> {
        let variables = self.variables.variables();
        self.variables
            .order()
            .iter()
            .filter_map(|&index| variables.get(index))
    }

    /// Looks all keys up, so that nothing is restored if one is missing. Returns the shape that each
    /// variable is to have in memory.
    ///
    /// # Errors
    ///
    /// NOT_FOUND for the first key that is missing; what is wrong with the entry of a variable without
    /// a shape of its own.
    fn find(&self, keys: &[&[u8]]) -> Result<Vec<Shape>> {
        let found = self.reader.find_all(keys);
        let looks_up_all = self.reader.format() == Format::V2;
        let shapes = self
            .ordered()
            .zip(found)
            .enumerate()
            .map(|(index, (variable, found))| {
                match (found, &variable.shape) {
                    // In a V1 checkpoint the first tensor that fails decides, for whatever reason.
                    (Err(error), _) if looks_up_all && error.code() == Code::NotFound => Err(error),
                    (_, Some(shape)) => Ok(shape.clone()),
                    (found, None) => Ok(found?.shape),
                }
                .map_err(|error| self.place(error.with_tensor_index(index)))
            });
        shapes.collect()
    }

    /// Restores the variables from `keys`, both in the order in which they are restored.
    fn read<'a>(
        &self,
        keys: &[&[u8]],
        shapes: Vec<Shape>,
        destinations: impl FnOnce(&[Shape], &mut Call<'_>) -> Result<Vec<RestoreData<'a>>>,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let variables = self.variables.variables();
        let mut given = vec![Shape::default(); variables.len()];
        for (&index, shape) in self.variables.order().iter().zip(shapes) {
            if let Some(slot) = given.get_mut(index) {
                *slot = shape;
            }
        }
        let mut data: Vec<Option<RestoreData<'_>>> =
            destinations(&given, call)?.into_iter().map(Some).collect();
        if data.len() != variables.len() {
            return Err(Error::internal(format!(
                "every variable needs a destination; num_destinations={} num_variables={}",
                data.len(),
                variables.len()
            )));
        }
        let mut tensors = Vec::with_capacity(variables.len());
        for (&index, key) in self.variables.order().iter().zip(keys) {
            let data = data.get_mut(index).and_then(Option::take);
            if let (Some(variable), Some(shape), Some(data)) =
                (variables.get(index), given.get(index), data)
            {
                tensors.push(RestoreTensor {
                    key,
                    dtype: variable.dtype,
                    shape: shape.clone(),
                    slice_spec: &variable.slice_spec,
                    device_name: &variable.device_name,
                    data,
                });
            }
        }
        let outcome = self.reader.restore(&mut tensors, self.options, call);
        outcome
            .and_then(crate::checkpoint::RestoreOutcome::into_result)
            .map_err(|error| self.place(error))
    }

    /// Turns the place in the order of the restore into that in the order given.
    fn place(&self, error: Error) -> Error {
        error.reindexed(self.variables.order())
    }
}

/// The keys under which a TF2 checkpoint has variables of these names.
///
/// # Errors
///
/// NOT_FOUND with TensorFlow's text when it has not all of them.
fn keys_by_name<'g>(graph: &'g ObjectGraph, names: &[&[u8]]) -> Result<Vec<&'g [u8]>> {
    if let Some(mismatch) = graph.mismatch(names.iter().copied()) {
        let missing: Vec<_> = mismatch
            .missing
            .iter()
            .map(|name| String::from_utf8_lossy(name))
            .collect();
        return Err(Error::not_found(format!(
            "\n\nExisting variables not in the checkpoint: {}\n\n\
             Variables names when this checkpoint was written which don't exist now: {}\n\n\
             ({} variable name(s) did match)\n\n\
             Could not find some variables in the checkpoint (see names above). The checkpoint was \
             written by tf.train.Checkpoint; its variables are looked up by the names that they had then",
            missing.join(", "),
            mismatch.extra.join(", "),
            mismatch.num_matching
        )));
    }
    let key = |name: &&[u8]| graph.key_of_name(name).map(str::as_bytes);
    names
        .iter()
        .map(|name| key(name).ok_or_else(|| Error::internal("a name has no key")))
        .collect()
}

/// Puts TensorFlow's words before an error that says that names, types or shapes differ.
fn explain(error: Error) -> Error {
    let reason = match error.code() {
        Code::NotFound => "a Variable name or other graph key that is missing",
        Code::InvalidArgument => "a mismatch between the current graph and the graph",
        _ => return error,
    };
    error.with_prefix(format_args!(
        "Restoring from checkpoint failed. This is most likely due to {reason} from the checkpoint. \
         Please ensure that you have not altered the graph expected based on the checkpoint. \
         Original error:\n\n"
    ))
}
