"""From a labelled dataset to a network that knows its classes, in this order:

recipes      what the paper did, as numbers
recipe_file  which of them a run goes by, with what a file or a person changes
order        which clip comes when
distributed  several processes, one run
schedule     the learning rate
batch_norm   one running average from many micro-batches
log          what a run tells while it lasts
tensorboard  the same for TensorBoard
checkpoint   folders that are complete and proven, or do not count
state        what changes while a network is trained
run_folder   who may write there, and whether a run can go on
validation   how good the network is on clips that it does not learn from
loop         all of it, step by step
finetuning   from a dataset and a model, or none, to a model file
fixed        the same with features taken once, and a new last layer
"""
