"""Where parameters come from.

catalog        what was published, file by file: WEIGHTS     labels      the lists of class names
cache          the published files, fetched and verified     convert     checkpoints made elsewhere → a model file
tf_checkpoint  TensorFlow checkpoint → arrays                model_file  a model file ↔ a Model
load           a name or a path → a Model: ``vadis.load_model``

Nothing is imported here: ``vadis weights list`` and ``doctor`` read the catalog without loading PyTorch.
"""
