//! Reads tensors of strings from front to back, in memory that does not grow with what is stored.
//!
//! The bytes of the elements follow all lengths ([`strings`](super::strings)). So a stored piece is gone
//! through twice: its lengths, which say how much memory the wanted elements take, and then its
//! contents, of which those elements are kept. When they are not neighbours, the lengths between them
//! are read once more beside the contents, rather than remembered.

use super::entry::DataExtent;
use super::strings::{StringTensor, update_with_length};
use crate::checksum::{self, Crc32c};
use crate::error::{Error, Result};
use crate::io::range::{RangeReader, Tick};
use crate::io::read::ReadFile;
use crate::memory::ChunkBuffer;
use crate::slices::Overlap;

/// A stored tensor of strings, or a slice of one.
#[derive(Clone, Copy)]
pub struct StoredStrings<'a> {
    /// Its data file.
    pub file: &'a ReadFile,
    /// Where it is there; known to lie inside the file.
    pub extent: DataExtent,
    /// Number of its elements.
    pub num_elements: u64,
    /// Whether the bundle is big-endian.
    pub big_endian: bool,
    /// Whether checksums are checked.
    pub check: bool,
    /// Names the checkpoint in messages.
    pub bundle: &'a str,
}

/// What the lengths of a stored tensor say.
pub struct Lengths {
    /// The checksum over the lengths and their own checksum.
    crc: Crc32c,
    /// Where in the file the contents begin.
    contents: u64,
}

/// The elements of a string tensor to be filled, and how they become known.
pub struct WantedStrings {
    lengths: Vec<usize>,
}

impl WantedStrings {
    /// Memory for `num_elements` lengths. The caller has compared the number with the sizes of the
    /// pieces, of which each element takes at least a byte.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn new(num_elements: u64) -> Result<Self> {
        let mut lengths = Vec::new();
        let num = usize::try_from(num_elements).unwrap_or(usize::MAX);
        lengths.try_reserve_exact(num).map_err(|_| {
            Error::resource_exhausted(format!("no memory for strings; num={num_elements}"))
        })?;
        lengths.resize(num, 0);
        Ok(Self { lengths })
    }

    /// The tensor, its bytes still zero.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn into_tensor(self) -> Result<StringTensor> {
        StringTensor::with_lengths(self.lengths)
    }
}

impl StoredStrings<'_> {
    /// Goes through the lengths and notes those of the elements that `overlap` puts into `wanted`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS with TensorFlow's texts when lengths run past the entry or end before it, or their
    /// checksum differs; those of reading and of `tick`.
    pub fn read_lengths(
        &self,
        wanted: Option<(&mut WantedStrings, &Overlap)>,
        buffer: &mut ChunkBuffer,
        tick: &Tick<'_>,
    ) -> Result<Lengths> {
        let end = self.end();
        let mut range = RangeReader::new(self.file, self.extent.offset, end, buffer, tick);
        let mut crc = Crc32c::new();
        let mut total = 0u64;
        let mut take = Taker::new(wanted);
        for element in 0..self.num_elements {
            let length = range.varint()?.ok_or_else(|| self.too_long())?;
            update_with_length(&mut crc, length, self.big_endian);
            total = total.checked_add(length).ok_or_else(|| self.too_long())?;
            take.note(element, length)?;
        }
        let stored = range.four_bytes()?.ok_or_else(|| self.too_long())?;
        let expected = checksum::unmask(if self.big_endian {
            u32::from_be_bytes(stored)
        } else {
            u32::from_le_bytes(stored)
        });
        if self.check && expected != crc.value() {
            return Err(Error::data_loss(format!(
                "The length checksum does not match: expected {expected:08} but actual is {:08}",
                crc.value()
            )));
        }
        crc.update(&stored);
        range.tell()?;
        match range.remaining().checked_sub(total) {
            Some(0) => Ok(Lengths {
                crc,
                contents: range.position(),
            }),
            Some(unused) => Err(Error::data_loss(format!(
                "string lengths end before the entry; unused={unused}"
            ))),
            None => Err(self.too_long()),
        }
    }

    /// Goes through the contents and copies the elements that `overlap` puts into `strings`. All are
    /// summed if checksums are checked; otherwise the others are not read.
    ///
    /// # Errors
    ///
    /// DATA_LOSS with TensorFlow's text when the checksum differs; those of reading and of `tick`.
    pub fn read_contents(
        &self,
        lengths: Lengths,
        wanted: Option<(&mut StringTensor, &Overlap)>,
        [buffer, lengths_buffer]: [&mut ChunkBuffer; 2],
        tick: &Tick<'_>,
    ) -> Result<()> {
        let Lengths { mut crc, contents } = lengths;
        let mut range = RangeReader::new(self.file, contents, self.end(), buffer, tick);
        let mut sum = |bytes: &[u8]| {
            if self.check {
                crc.update(bytes);
            }
        };
        if let Some((strings, overlap)) = wanted {
            // Read for the second time, so it is no progress.
            let silent = |_| Ok(());
            let start = self.extent.offset;
            let mut again = RangeReader::new(self.file, start, contents, lengths_buffer, &silent);
            // The next length to be read, and the next element whose bytes were not.
            let (mut element, mut unread) = (0, 0);
            for run in overlap.runs() {
                let mut before = 0u64;
                while element < run.source {
                    let length = again.varint()?.ok_or_else(|| self.too_long())?;
                    if element >= unread {
                        before = before.saturating_add(length);
                    }
                    element += 1;
                }
                if self.check {
                    range.pass(before, &mut sum)?;
                } else {
                    range.skip(before)?;
                }
                let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
                let dest = strings.bytes_mut(place(run.dest), place(run.dest + run.len));
                let dest = dest.ok_or_else(|| Error::internal("a run leaves the request"))?;
                range.copy_to(dest, &mut sum)?;
                unread = run.source + run.len;
            }
        }
        if self.check {
            range.pass(u64::MAX, &mut sum)?;
        } else {
            range.skip(u64::MAX)?;
        }
        range.tell()?;
        if self.check {
            self.extent.check(self.bundle, crc.value())?;
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.extent.offset.saturating_add(self.extent.size)
    }

    fn too_long(&self) -> Error {
        let end = self.end();
        Error::data_loss(format!("String lengths longer than expected offset {end}"))
    }
}

/// Notes the lengths of wanted elements while all lengths pass by.
struct Taker<'a> {
    wanted: Option<(&'a mut WantedStrings, &'a Overlap)>,
    /// The next run to begin.
    next: u64,
    /// First wanted element of the current run, its place, and the element behind its last.
    run: (u64, u64, u64),
}

impl<'a> Taker<'a> {
    fn new(wanted: Option<(&'a mut WantedStrings, &'a Overlap)>) -> Self {
        Self {
            wanted,
            next: 0,
            run: (0, 0, 0),
        }
    }

    fn note(&mut self, element: u64, length: u64) -> Result<()> {
        let Some((wanted, overlap)) = &mut self.wanted else {
            return Ok(());
        };
        if element >= self.run.2 && self.next < overlap.num_runs() {
            let run = overlap.run(self.next);
            self.run = (run.source, run.dest, run.source + run.len);
            self.next += 1;
        }
        let (source, dest, end) = self.run;
        if (source..end).contains(&element) {
            let place = usize::try_from(dest + (element - source)).ok();
            let slot = place.and_then(|place| wanted.lengths.get_mut(place));
            let slot = slot.ok_or_else(|| Error::internal("a run leaves the request"))?;
            *slot = usize::try_from(length)
                .map_err(|_| Error::data_loss("a string exceeds the address space"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::strings::tests::encode;
    use super::*;
    use crate::coding;
    use crate::error::Code;
    use proptest::prelude::*;

    /// Reads all elements, or those of a slice, through buffers of `capacity` bytes.
    fn read(
        data: &[u8],
        num: u64,
        crc32c: u32,
        (big_endian, check): (bool, bool),
        overlap: &Overlap,
        capacity: usize,
    ) -> Result<StringTensor> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, data).unwrap();
        let file = ReadFile::open(&path).unwrap();
        let stored = StoredStrings {
            file: &file,
            extent: DataExtent {
                shard_id: 0,
                offset: 0,
                size: data.len() as u64,
                crc32c,
            },
            num_elements: num,
            big_endian,
            check,
            bundle: "m",
        };
        let mut a = ChunkBuffer::new(capacity).unwrap();
        let mut b = ChunkBuffer::new(capacity).unwrap();
        let tick = |_| Ok(());
        let mut wanted = WantedStrings::new(overlap.num_elements())?;
        let lengths = stored.read_lengths(Some((&mut wanted, overlap)), &mut a, &tick)?;
        let mut strings = wanted.into_tensor()?;
        let buffers = [&mut a, &mut b];
        stored.read_contents(lengths, Some((&mut strings, overlap)), buffers, &tick)?;
        Ok(strings)
    }

    fn all(num: u64) -> Overlap {
        Overlap::new(&vec![(0, num)], &vec![(0, num)]).unwrap_or_else(Overlap::empty)
    }

    fn decode(data: &[u8], num: u64, crc: u32) -> Result<StringTensor> {
        read(data, num, crc, (false, true), &all(num.min(100)), 64)
    }

    #[test]
    fn big_endian_strings_are_read() {
        let data = b"\x02\x03\xde\xd0\xc9\x8dabcde";
        let strings = read(data, 2, 0x0010_69f5, (true, true), &all(2), 64).unwrap();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"ab"[..], b"cde"]);
    }

    #[test]
    fn lengths_that_run_past_the_entry_are_data_loss() {
        let huge = {
            let mut data = Vec::new();
            coding::put_varint(&mut data, 1 << 50);
            let crc = checksum::crc32c(&(1u64 << 50).to_le_bytes());
            data.extend(checksum::mask(crc).to_le_bytes());
            data
        };
        let crc = checksum::crc32c(&[]);
        for (data, num) in [
            (&huge[..], 1),
            (&[][..], 0),
            (&[0x80; 20], 1),
            (&[0; 3], 1),
            (&[0; 8], 1 << 40),
        ] {
            for check in [false, true] {
                let error = read(data, num, crc, (false, check), &all(num.min(1)), 64).unwrap_err();
                assert_eq!(error.code(), Code::DataLoss);
            }
        }
    }

    #[test]
    fn lengths_that_end_before_the_entry_are_data_loss() {
        let (mut data, crc) = encode(&[b"ab"], 64);
        data.push(b'c');
        let error = read(&data, 1, crc, (false, false), &all(1), 64).unwrap_err();
        assert_eq!(
            error.message(),
            "string lengths end before the entry; unused=1"
        );
    }

    type Cut = Vec<(u64, u64)>;

    fn at(place: u64) -> usize {
        usize::try_from(place).unwrap()
    }

    /// A stored slice, and one that is wanted of it.
    fn slice() -> impl Strategy<Value = (Cut, Cut)> {
        let dim = (1u64..6).prop_flat_map(|size| {
            (Just(size), 0..size)
                .prop_flat_map(|(size, start)| (Just((0, size)), (Just(start), 1..=size - start)))
        });
        proptest::collection::vec(dim, 1..4).prop_map(|dims| dims.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn strings_round_trip_and_every_flipped_bit_is_found(
            elements in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            bit: usize,
        ) {
            let borrowed: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
            let (data, crc) = encode(&borrowed, 64);
            let num = elements.len() as u64;
            let strings = decode(&data, num, crc).unwrap();
            prop_assert_eq!(strings.iter().collect::<Vec<_>>(), borrowed);

            let mut flipped = data;
            let bit = bit % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(
                decode(&flipped, num, crc).unwrap_err().code(),
                Code::DataLoss
            );
        }

        #[test]
        fn any_slice_is_read_through_any_buffer(
            (stored, wanted) in slice(),
            seed: [u8; 8],
            capacity in 10usize..200,
            check: bool,
        ) {
            let num: u64 = stored.iter().map(|&(_, size)| size).product();
            let elements: Vec<Vec<u8>> = (0..at(num))
                .map(|i| vec![u8::try_from(i).unwrap(); usize::from(seed[i % 8]) * (i % 3) / 2])
                .collect();
            let borrowed: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
            let (data, crc) = encode(&borrowed, 64);
            let overlap = Overlap::new(&stored, &wanted).unwrap();
            let strings = read(&data, num, crc, (false, check), &overlap, capacity).unwrap();
            let mut expected = vec![&[][..]; at(overlap.num_elements())];
            for run in overlap.runs() {
                for i in 0..run.len {
                    expected[at(run.dest + i)] = borrowed[at(run.source + i)];
                }
            }
            prop_assert_eq!(strings.iter().collect::<Vec<_>>(), expected);

            let mut flipped = data;
            let bit = usize::from_le_bytes(seed) % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damaged = read(&flipped, num, crc, (false, true), &overlap, capacity);
            prop_assert_eq!(damaged.unwrap_err().code(), Code::DataLoss);
        }
    }
}
