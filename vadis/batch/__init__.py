"""Many files: nothing lost, nothing done twice, one record per input."""
