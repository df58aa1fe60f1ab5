"""Weights in and out: checkpoint files, and other libraries' names for the same tensors."""
