"""Where parameters come from: ``load.load_model`` gives a model for a name or a path.

Nothing is imported here: ``vadis weights list`` and ``doctor`` read the catalog without loading PyTorch.
"""
