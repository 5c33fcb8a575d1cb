"""The published model of the catalog, small and on a local server, for the check of DeepMind's sample."""

from tests.weights.conftest import bundles, cache, published, server

__all__ = ["bundles", "cache", "published", "server"]
