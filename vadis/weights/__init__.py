"""Where parameters come from: the catalog, download and cache, TensorFlow checkpoints, vadis model files, label lists.

catalog        what was published, file by file: WEIGHTS
download       those files → the cache, verified          (http_get: one GET that cannot hang)
tf_checkpoint  TensorFlow checkpoint → arrays             (crc32c: its checksum)
convert        checkpoints made elsewhere → a model file
model_file     a model file ↔ a Model
load           a name or a path → a Model: ``vadis.load_model``
sample         DeepMind's published sample: arrays, and what their own model says of them

Nothing is imported here: ``vadis weights list`` and ``doctor`` read the catalog without loading PyTorch.
"""
