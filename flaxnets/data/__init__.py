"""Data sets and batches; every batch is a pure function of (seed, step)."""
