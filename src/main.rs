//! The thin binary: allocator, command line, exit code.

fn main() {}
