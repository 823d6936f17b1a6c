//! Reads what a restore from a V2 checkpoint has planned.

use super::refused::Refused;
use super::restore::RestoreOptions;
use super::restore_plan::{Planned, plan};
use super::restore_rounds::{RestoreFormat, RestorePlan, Round, RoundOutcome};
use super::restore_strings::StringPlan;
use super::tensor::RestoreTensor;
use crate::bundle::BundleReader;
use crate::error::{Code, Error, Result};
use crate::transfer::Call;
use crate::transfer::read::{self, How, Piece};

impl RestoreFormat for BundleReader {
    fn plan<'a, 's>(
        &'s self,
        tensors: &[RestoreTensor<'a>],
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<Box<dyn RestorePlan<'a> + 's>>
    where
        'a: 's,
    {
        let mut planned = plan(self, tensors, options, call)?;
        if options.restore_sequentially {
            // So that those of a round are found.
            planned.pieces.sort_unstable_by_key(|piece| piece.tensor);
        }
        if options.restore_sequentially || options.in_request_order {
            planned.strings.sort_unstable_by_key(|plan| plan.tensor);
        }
        Ok(Box::new(V2Plan {
            reader: self,
            options: *options,
            planned,
        }))
    }
}

/// What is to be read of a V2 checkpoint.
struct V2Plan<'s, 'a> {
    reader: &'s BundleReader,
    options: RestoreOptions,
    planned: Planned<'a>,
}

impl<'a> RestorePlan<'a> for V2Plan<'_, 'a> {
    fn bytes(&self) -> u64 {
        self.planned.bytes()
    }

    fn take_refused(&mut self) -> Refused {
        std::mem::take(&mut self.planned.refused)
    }

    fn run(
        &mut self,
        tensors: &mut [RestoreTensor<'a>],
        round: Round<'_>,
        call: &mut Call<'_>,
    ) -> Result<RoundOutcome> {
        match round {
            Round::All => {
                let Planned {
                    pieces, strings, ..
                } = std::mem::take(&mut self.planned);
                let strings = strings.iter().map(|plan| (plan.tensor, plan));
                let read = self.read(tensors, round, pieces, call)?;
                self.read_strings(tensors, strings, read, call)
            }
            Round::Some(members) => {
                let Planned {
                    pieces, strings, ..
                } = &self.planned;
                let (mut own, mut own_strings) = (Vec::new(), Vec::new());
                for (place, &member) in members.iter().enumerate() {
                    own.extend(
                        of_tensor(pieces, member, |piece| piece.tensor as usize).map(|piece| {
                            Piece {
                                tensor: u32::try_from(place).unwrap_or(u32::MAX),
                                ..piece.clone()
                            }
                        }),
                    );
                    let plans = of_tensor(strings, member, |plan| plan.tensor);
                    own_strings.extend(plans.map(|plan| (place, plan)));
                }
                let read = self.read(tensors, round, own, call)?;
                self.read_strings(tensors, own_strings.into_iter(), read, call)
            }
        }
    }
}

/// The elements of a list, sorted by tensor, that belong to one.
fn of_tensor<T>(
    list: &[T],
    tensor: usize,
    tensor_of: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &T> {
    let start = list.partition_point(|element| tensor_of(element) < tensor);
    let rest = list.get(start..).unwrap_or_default();
    rest.iter()
        .take_while(move |element| tensor_of(element) == tensor)
}

impl<'a> V2Plan<'_, 'a> {
    /// Reads the pieces of a round, whose tensors are numbered by their place in it.
    fn read(
        &self,
        tensors: &[RestoreTensor<'a>],
        round: Round<'_>,
        pieces: Vec<Piece<'a>>,
        call: &mut Call<'_>,
    ) -> Result<RoundOutcome> {
        let bundle = self.reader.prefix().display().to_string();
        let (num, members) = match round {
            Round::All => (tensors.len(), None),
            Round::Some(members) => (members.len(), Some(members)),
        };
        let name = |index: usize, error: Error| {
            let key = tensors.get(index).map_or(&[][..], |tensor| tensor.key);
            error.with_key(key)
        };
        let how = How {
            bundle: &bundle,
            keep_going: self.options.keep_going,
            in_request_order: self.options.in_request_order,
            strict: self.options.strict,
            only_checks: false,
            members,
            name: &name,
        };
        let read = read::execute(call, pieces, num, how)?;
        let failed = read.failed.into_iter();
        let failed = failed.map(|(place, error)| (how.index(place), how.told(place, error)));
        Ok(RoundOutcome {
            complete: read.complete,
            failed: failed.collect(),
            ended: read.ended,
        })
    }

    /// Reads the tensors of strings of a round after the others; each comes with its place there.
    fn read_strings<'p>(
        &self,
        tensors: &mut [RestoreTensor<'a>],
        plans: impl Iterator<Item = (usize, &'p StringPlan)>,
        mut round: RoundOutcome,
        call: &mut Call<'_>,
    ) -> Result<RoundOutcome> {
        for (place, plan) in plans {
            let complete = round.complete.get_mut(place);
            let (Some(complete), Some(tensor)) = (complete, tensors.get_mut(plan.tensor)) else {
                continue;
            };
            // Nothing of it was among the pieces.
            *complete = false;
            if round.ended.is_some() {
                continue;
            }
            match plan.read(self.reader, self.options.verify, call) {
                Ok(strings) => {
                    tensor.data.put_strings(strings);
                    *complete = true;
                    call.monitor().arrived(plan.tensor);
                }
                // No tensor's fault.
                Err(error) if error.code() == Code::Cancelled => round.ended = Some(error),
                Err(error) => {
                    let error = error.with_tensor_index(plan.tensor).with_key(tensor.key);
                    call.monitor().failed(plan.tensor, &error);
                    round.ended = (!self.options.keep_going).then(|| error.clone());
                    round.failed.insert(plan.tensor, error);
                }
            }
        }
        Ok(round)
    }
}
