"""The paper's test: a dataset split through a model, how often the model is right, and the paper's figures beside it.

predictions    what a model says of each video, kept line by line so that a test goes on where it stopped
metrics        accuracies and confusion of predictions; metrics.json
records        the same from what ``vadis classify`` wrote
paper_tables   the figures of the paper's tables 2 to 5
run_index      which of them finished runs fill              paper_plan   the commands for the others
sample         DeepMind's published sample and outputs
"""
