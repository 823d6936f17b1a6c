//! Copies of a save's tensors of the host, made before it waits for its turn, where only those have to be
//! copied: the tensors of GPUs beside them stay as they are.
//!
//! The copies lie one behind the other and take the place of the tensors, whatever else is in the same chunk
//! of a data file. They are made on all threads.

use std::ops::DerefMut;

use super::budget::{For, Reservation};
use super::deliver::to_usize;
use super::write::{Source, WriteTensor, devices};
use super::{Call, ITEM, pipeline, snapshot};
use crate::bundle::StringsToSave;
use crate::error::{Error, Result};
use crate::memory::{Buffer, DestSpan, SourceSpan, zeroed};

/// Bytes from which on memory in huge pages is worth it: one of them.
const HUGE: u64 = 2 << 20;

/// Copies of tensors.
pub struct HostCopies<'c> {
    memory: Box<dyn DerefMut<Target = [u8]>>,
    /// Where the copy of each tensor begins.
    starts: Vec<usize>,
    /// Held as long as the memory.
    _reservation: Reservation<'c>,
}

/// What a thread copies at once.
struct Item {
    tensor: usize,
    /// Of a tensor of strings all of it; otherwise this much from here.
    start: usize,
    len: usize,
}

impl<'c> HostCopies<'c> {
    /// Copies the host's tensors; `None`, and nothing done, if the budget has no room for them.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a limit of the call's own below the minimum; RESOURCE_EXHAUSTED; CANCELLED.
    pub fn new(call: &mut Call<'c>, tensors: &[WriteTensor<'_>]) -> Result<Option<Self>> {
        let (mut size, mut elements) = (0u64, 0u64);
        let (mut starts, mut items) = (Vec::with_capacity(tensors.len()), Vec::new());
        for (tensor, WriteTensor { source, .. }) in tensors.iter().enumerate() {
            starts.push(to_usize(size)?);
            let (mut start, end) = (0, bytes_of(source));
            size = size.saturating_add(end as u64);
            if let Source::Strings(strings) = source {
                elements += strings.0.len() as u64;
            }
            let most = match source {
                Source::Bytes(_) => ITEM,
                Source::Strings(_) | Source::Device(_) => usize::MAX,
            };
            while start < end {
                let len = most.min(end - start);
                items.push(Item { tensor, start, len });
                start += len;
            }
        }
        let memory_size = match size {
            size if size < HUGE => size,
            size => size.saturating_add(HUGE - 1) / HUGE * HUGE,
        };
        let needed = memory_size.saturating_add(elements * size_of::<SourceSpan<'_>>() as u64);
        if needed > snapshot::limit(call, devices(tensors).len())? {
            return Ok(None);
        }
        let budget = call.context.budget();
        let progress = &mut call.progress;
        let reservation = budget.reserve(For::Copies, needed, needed, &mut || progress.poll())?;
        if reservation.bytes() < needed {
            return Ok(None); // more devices take part by now
        }
        call.copies = needed;
        call.note_held(0);
        let mut memory: Box<dyn DerefMut<Target = [u8]>> = match size {
            size if size < HUGE => Box::new(zeroed(to_usize(size)?)?),
            size => Box::new(Buffer::new(to_usize(size)?)?),
        };
        let dest = DestSpan::from(&mut **memory);
        let threads = usize::try_from(size >> 20).unwrap_or(usize::MAX).max(1);
        pipeline::run(
            threads.min(call.context.num_threads()),
            items.len(),
            &mut call.progress,
            || Ok(()),
            |(), item, shared| {
                shared.check()?;
                let item = items.get(item);
                let copied = item.and_then(|item| {
                    let source = &tensors.get(item.tensor)?.source;
                    copy(source, item, *starts.get(item.tensor)?, dest)
                });
                copied.ok_or_else(|| Error::internal("a tensor outgrew its copy"))
            },
        )?;
        Ok(Some(Self {
            memory,
            starts,
            _reservation: reservation,
        }))
    }

    /// The copies of the elements of each tensor of strings, in the order of those.
    pub fn elements(&self, tensors: &[WriteTensor<'_>]) -> Vec<Vec<SourceSpan<'_>>> {
        let tensors = tensors.iter().zip(&self.starts);
        let of_tensor = |(tensor, &start): (&WriteTensor<'_>, &usize)| match &tensor.source {
            Source::Strings(strings) => {
                let mut start = start;
                let of_element = |element: &SourceSpan<'_>| {
                    let copy = self.copy(start, element.len());
                    start += element.len();
                    copy
                };
                Some(strings.0.iter().map(of_element).collect())
            }
            Source::Bytes(_) | Source::Device(_) => None,
        };
        tensors.filter_map(of_tensor).collect()
    }

    /// The tensors, with copies in the place of those that were copied.
    pub fn tensors<'s>(
        &'s self,
        tensors: &'s [WriteTensor<'_>],
        elements: &'s [Vec<SourceSpan<'s>>],
    ) -> Vec<WriteTensor<'s>> {
        let mut elements = elements.iter();
        let of_tensor = |(tensor, &start): (&'s WriteTensor<'_>, &usize)| WriteTensor {
            shard_id: tensor.shard_id,
            source: match &tensor.source {
                Source::Bytes(span) => Source::Bytes(self.copy(start, span.len())),
                Source::Device(span) => Source::Device(*span),
                Source::Strings(_) => {
                    let elements = elements.next().map(Vec::as_slice);
                    Source::Strings(StringsToSave(elements.unwrap_or_default()))
                }
            },
        };
        tensors.iter().zip(&self.starts).map(of_tensor).collect()
    }

    fn copy(&self, start: usize, len: usize) -> SourceSpan<'_> {
        let end = start.saturating_add(len);
        SourceSpan::from(self.memory.get(start..end).unwrap_or_default())
    }
}

/// Bytes of the copy of a tensor.
fn bytes_of(source: &Source<'_>) -> usize {
    match source {
        Source::Bytes(span) => span.len(),
        Source::Strings(strings) => strings.0.iter().map(SourceSpan::len).sum(),
        Source::Device(_) => 0,
    }
}

/// Copies an item of a tensor whose copy begins at `start`.
fn copy(source: &Source<'_>, item: &Item, start: usize, dest: DestSpan<'_>) -> Option<()> {
    match source {
        Source::Bytes(span) => span.copy_into(item.start, dest.get(start + item.start, item.len)?),
        Source::Strings(strings) => {
            let mut start = start;
            for element in strings.0 {
                element.copy_into(0, dest.get(start, element.len())?)?;
                start += element.len();
            }
            Some(())
        }
        Source::Device(_) => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::transfer::{Context, ContextOptions};

    fn context(max_host_bytes: u64) -> Context {
        let options = ContextOptions {
            max_host_bytes,
            num_threads: 3,
        };
        Context::new(options).unwrap()
    }

    /// The bytes of a span.
    fn read(span: &SourceSpan<'_>) -> Vec<u8> {
        let mut bytes = vec![0; span.len()];
        span.copy_into(0, DestSpan::from(&mut bytes[..])).unwrap();
        bytes
    }

    #[test]
    fn copies_are_what_the_tensors_were_whatever_these_become() {
        // In ordinary memory, and in huge pages.
        for len in [1000, (9 << 20) + 5] {
            let before: Vec<u8> = (0..251).cycle().take(len + 20).collect();
            let memory: Vec<_> = before.iter().map(|&byte| AtomicU8::new(byte)).collect();
            let span = |start: usize, len| SourceSpan::from(&memory[start..start + len]);
            let elements = [span(len, 3), span(0, 0), span(len + 3, 17)];
            let sources = [
                Source::Bytes(span(0, len - 7)),
                Source::Strings(StringsToSave(&elements)),
                Source::Strings(StringsToSave(&[])),
                Source::Bytes(span(len - 7, 7)),
            ];
            let tensors = sources.map(|source| WriteTensor {
                shard_id: 3,
                source,
            });
            let context = context(32 << 20);
            let mut call = Call::new(&context);
            let copies = HostCopies::new(&mut call, &tensors).unwrap().unwrap();
            assert!(call.stats.peak_host_bytes >= (len + 20 + 3 * 16) as u64);
            for byte in &memory {
                byte.store(0, Ordering::Relaxed);
            }
            let elements = copies.elements(&tensors);
            let copied = copies.tensors(&tensors, &elements);
            let bytes = copied.iter().flat_map(|tensor| match &tensor.source {
                Source::Bytes(span) => vec![read(span)],
                Source::Strings(strings) => strings.0.iter().map(read).collect(),
                Source::Device(_) => Vec::new(),
            });
            let bytes = bytes.collect::<Vec<_>>();
            let of = |start: usize, len| before[start..start + len].to_vec();
            let want = [
                of(0, len - 7),
                of(len, 3),
                vec![],
                of(len + 3, 17),
                of(len - 7, 7),
            ];
            assert!(bytes == want);
            assert!(copied.iter().all(|tensor| tensor.shard_id == 3));
        }
    }

    #[test]
    fn without_room_for_all_of_them_nothing_is_copied() {
        let memory = vec![7; 3 << 20];
        let tensor = |len: usize| WriteTensor {
            shard_id: 0,
            source: Source::Bytes(SourceSpan::from(&memory[..len])),
        };
        let context = context(3 << 20);
        let copy = |len, own_limit| {
            let mut call = Call::new(&context);
            call.max_host_bytes = own_limit;
            HostCopies::new(&mut call, &[tensor(len)])
                .unwrap()
                .is_some()
        };
        assert!(copy(2 << 20, 0) && copy(1000, 2 << 20));
        assert!(!copy((2 << 20) + 1, 0));
        // It waits for what others have, but not for ever.
        let held = context
            .budget()
            .reserve(For::Copies, 1 << 20, 1, &mut || Ok(()))
            .unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| copy(2 << 20, 0));
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }
}
