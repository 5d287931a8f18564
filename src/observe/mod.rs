//! What the operator sees: access lines, metrics, the program's own log.
