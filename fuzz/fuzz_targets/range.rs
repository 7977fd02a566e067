//! The value of a `Range` header.
#![no_main]

use ballast_format::range::RangeRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &str)| {
    let (size, value) = input;
    let Ok(request) = RangeRequest::parse(value) else {
        return;
    };
    if let Ok(range) = request.resolve(size) {
        assert!(range.start < range.end && range.end <= size);
    }
});
