"""The paper's test: a dataset split through a model, how often that is right, and the paper's figures beside it."""
