"""Run networks over videos: files in, labels or features out."""
