//! Checks the sidecar of a V2 checkpoint.

use crate::bundle::sidecar::{Record, Sidecar};
use crate::bundle::{BundleReader, Lookup, Stored};
use crate::error::{Code, Error, Result};
use crate::naming;
use crate::transfer::Call;

/// Hands everything that is wrong with the sidecar, if there is one, to `damage`: its own checksum, its
/// order, entries that are not those of the index, chunks that do not combine to their entry.
///
/// # Errors
///
/// CANCELLED.
pub(super) fn verify(
    reader: &BundleReader,
    damage: &mut dyn FnMut(Error),
    call: &mut Call<'_>,
) -> Result<()> {
    // Not the reader's, which was gone through when it was asked for first.
    let sidecar = match Sidecar::open(&naming::sidecar_file(reader.prefix())) {
        Ok(sidecar) => sidecar,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => {
            damage(error);
            return Ok(());
        }
    };
    let mut lookup = reader.lookup();
    let walked = sidecar.walk(&mut |key, record| {
        call.progress.poll()?;
        if let Err(error) = check(&sidecar, key, record, &mut lookup) {
            damage(error.with_file(sidecar.path()).with_key(key));
        }
        Ok(())
    });
    match walked {
        Err(error) if error.code() == Code::Cancelled => Err(error),
        Err(error) => {
            damage(error);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn check(sidecar: &Sidecar, key: &[u8], record: &Record, lookup: &mut Lookup<'_>) -> Result<()> {
    sidecar.chunks(record, 0..0)?;
    // What is wrong with the index was told before.
    let Ok(entry) = lookup.find(key) else {
        return Ok(());
    };
    match entry.map(|entry| entry.stored) {
        Some(Stored::Whole(extent)) if record.is_of(&extent) => Ok(()),
        _ => Err(Error::data_loss(
            "the sidecar of chunk checksums lists an entry that is not the index's; another program may \
             have overwritten the checkpoint without it",
        )),
    }
}
