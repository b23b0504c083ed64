//! The source whose parsers are fuzzed.

use std::sync::LazyLock;

use acquisition::Source;

/// As `FUZZ_SOURCE` names it.
pub static SOURCE: LazyLock<&Source> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_SOURCE").expect("FUZZ_SOURCE names a source");
    acquisition::source(&name).expect("a source")
});
