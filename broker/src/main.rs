//! databroker
fn main() {}
