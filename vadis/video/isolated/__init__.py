"""Decode in a process of its own, which may do nothing else."""
