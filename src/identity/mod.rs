//! Who is asking: claims, key sets, bearer tokens.
