//! Manifests and the directories of shard objects: as they are, and as the fields of such with
//! everything around them right.
#![no_main]

use ballast_format::codec::Format;
use ballast_format::manifest::{Manifest, ShardDirectory};
use libfuzzer_sys::fuzz_target;

const MANIFEST: Format = Format {
    what: "manifest",
    magic: *b"BLSTMANI",
    version: 1,
    limit: usize::MAX,
    has_checksum: true,
};
const DIRECTORY: Format = Format {
    magic: *b"BLSTSHRD",
    ..MANIFEST
};

fuzz_target!(|bytes: &[u8]| {
    let framed = MANIFEST.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        let Ok(manifest) = Manifest::decode(bytes) else {
            continue;
        };
        assert_eq!(manifest.encode().expect("it was within the limits"), bytes);
        assert_eq!(manifest.find(manifest.size), None);
        for (index, term) in manifest.terms.iter().enumerate() {
            let start = manifest.start_of(index);
            assert_eq!(manifest.find(start), Some(index));
            assert_eq!(
                manifest.find(start + u64::from(term.length) - 1),
                Some(index)
            );
        }
    }
    let framed = DIRECTORY.encode(|to| to.array(bytes)).expect("no limit");
    for bytes in [bytes, &framed] {
        let Ok(directory) = ShardDirectory::decode(bytes) else {
            continue;
        };
        let mut end = ShardDirectory::front_length(bytes).expect("it was decoded") as u64;
        for place in &directory.places {
            assert_eq!(place.offset, end);
            end = end.saturating_add(u64::from(place.length));
        }
    }
});
