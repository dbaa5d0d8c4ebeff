//! The header is that of the library.

use std::path::Path;

/// `SHIFTWISE_WRITE=1 cargo test -p shiftwise-c` writes the header anew.
#[test]
fn header_is_that_of_the_library() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_config(config).with_src(here.join("src/lib.rs")).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = here.join("../include/shiftwise.h");
    if std::env::var_os("SHIFTWISE_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let header = std::fs::read(&path).unwrap_or_default();
    assert!(header == made, "{} is not what the library exports", path.display());
}
