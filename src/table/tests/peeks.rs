//! Looking at one entry of a block that was read before.

use super::*;

/// Entries in blocks of about 2 KiB, some keys longer than what is read of them at first.
fn many() -> Entries {
    (0..2000)
        .map(|i| {
            let mut key = format!("{i:05}").into_bytes();
            key.resize(5 + (i * 7 % 31) * (i % 9), b'k');
            (key, vec![i as u8; i * 5 % 40])
        })
        .collect()
}

#[test]
fn a_block_that_was_read_is_peeked_into_for_each_of_its_keys() {
    let entries = many();
    let table = open(&build(&entries, 2 << 10)).unwrap();
    let peeked = || {
        entries
            .iter()
            .filter_map(|(key, _)| table.peek(key))
            .count()
    };
    assert_eq!(peeked(), 0);
    assert_eq!(list(&table).0, entries);
    // The first block is held, and so is the one read last.
    assert!((1800..2000).contains(&peeked()), "{}", peeked());
    for (key, value) in &entries {
        if let Some(peeked) = table.peek(key) {
            assert_eq!(&peeked, value);
        }
        let missing = [key.as_slice(), b"\0"].concat();
        assert_eq!(table.peek(&missing), None);
        assert_eq!(table.get(&missing).unwrap(), None);
        let _ = table.peek(key.get(..key.len() - 1).unwrap());
    }
    assert_eq!(table.peek(b""), None);
    assert_eq!(table.peek(b"1"), None);
}

#[test]
fn damage_that_came_after_the_first_reading_is_no_panic() {
    let entries = many();
    let bytes = build(&entries, 2 << 10);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let mut table = TableReader::open(Arc::new(ReadFile::open(file.path()).unwrap())).unwrap();
    table.load_first().unwrap();
    list(&table);
    let handle = table.index().handle(3).unwrap();
    let bounds = table.index().bounds(3).unwrap();
    let (low, high) = (bounds.above.unwrap(), bounds.up_to);
    let keys = entries.iter().map(|(key, _)| key.as_slice());
    let keys: Vec<&[u8]> = keys.filter(|&key| key > low && key <= high).collect();
    assert!(keys.len() > 20);
    for at in handle.offset..handle.offset + handle.size {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at as usize] ^= flip;
            std::fs::write(file.path(), damaged).unwrap();
            for key in [keys[0], keys[keys.len() / 2], keys[keys.len() - 1]] {
                let _ = table.peek(key);
            }
        }
    }
    assert_eq!(table.get(keys[0]).unwrap_err().code(), Code::DataLoss);
    std::fs::write(file.path(), &bytes[..handle.offset as usize]).unwrap();
    assert_eq!(table.peek(keys[0]), None);
}
