//! Checks the sidecar of a V2 checkpoint.

use std::sync::Arc;

use crate::bundle::sidecar::{Record, Sidecar};
use crate::bundle::{BundleReader, Lookup, SidecarFound, Stored};
use crate::error::{Code, Error, Result};
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
    let found: Arc<SidecarFound> = reader.sidecar();
    let sidecar = match &*found {
        SidecarFound::Missing => return Ok(()),
        SidecarFound::Useless(error) => {
            damage(error.clone());
            return Ok(());
        }
        SidecarFound::Sound(sidecar) => sidecar,
    };
    let mut lookup = reader.lookup();
    let walked = sidecar.walk(&mut |key, record| {
        call.progress.poll()?;
        if let Err(error) = check(sidecar, key, record, &mut lookup) {
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
