//! The directories of zips: as they are, with everything that a scan asks of them.
#![no_main]

use ballast_format::archive::{self, Directory, Local, TAIL_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut directory = Directory::default();
    let size = bytes.len() as u64;
    let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES as usize)..];
    if let Some(end) = archive::find(tail, size, &mut directory) {
        assert!(end.offset + end.length <= size);
        let start = end.offset as usize;
        archive::read(&bytes[start..start + end.length as usize], &end, &mut directory);
        for entry in directory.entries.clone() {
            let at = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let local = bytes.get(at..).and_then(Local::read);
            if let Some(place) = archive::compare(&entry, local.as_ref(), &mut directory) {
                assert!(place.start <= place.end);
                let _ = archive::follows(&entry, place.end, end.offset);
            }
        }
    }
});
