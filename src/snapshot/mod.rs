//! From the document to the compiled, immutable snapshot that requests run on.
