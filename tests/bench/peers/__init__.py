"""The parts of tests/bench/compare: one file for each system, and what measures them."""
