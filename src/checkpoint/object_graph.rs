//! The object graph of a TF2 checkpoint, read out of it.

use super::reader::Reader;
use super::restore::RestoreOptions;
use super::tensor::{RestoreData, RestoreTensor};
use crate::bundle::StringTensor;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::object_graph::{self, ObjectGraph};
use crate::transfer::Call;

impl Reader {
    /// The objects of a checkpoint that `tf.train.Checkpoint` or `tf.saved_model.save` wrote; `None` if
    /// it is one of names only, as `tf.train.Saver` writes.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when the graph, or the part of the index it would be in, is damaged or makes no sense;
    /// CANCELLED.
    pub fn object_graph(&self, call: &mut Call<'_>) -> Result<Option<ObjectGraph>> {
        let info = match self.find(object_graph::KEY) {
            Ok(info) => info,
            Err(error) if error.code() == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let place = |error: Error| {
            let error = error.with_key(object_graph::KEY);
            error.with_file(self.prefix())
        };
        if info.dtype != DType::String || info.shape.rank() != 0 {
            return Err(place(Error::data_loss(format!(
                "the object graph is not one string; dtype={} shape={}",
                info.dtype, info.shape
            ))));
        }
        // Told by the index, before so much is read.
        if info.size > object_graph::MAX_SIZE {
            return Err(place(object_graph::too_large(info.size)));
        }
        let mut strings = StringTensor::default();
        let mut tensors = [RestoreTensor {
            key: object_graph::KEY,
            dtype: info.dtype,
            shape: info.shape,
            slice_spec: "",
            device_name: "",
            data: RestoreData::Strings(&mut strings),
        }];
        let outcome = self.restore(&mut tensors, &RestoreOptions::default(), call)?;
        outcome.into_result()?;
        let bytes = strings.get(0).unwrap_or_default();
        ObjectGraph::parse(bytes).map(Some).map_err(place)
    }
}
