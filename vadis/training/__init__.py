"""From a labelled dataset to a network that knows its classes, in this order:

recipes       what the paper did, as numbers, with what a file or a person changes
loader        which clip comes when, and what it shows
distributed   several processes, one run
log           what a run reports while it lasts
checkpoint    what changes while a network is trained, and the files from which it goes on
loop          all of it, step by step, with the validation on clips that the network does not learn from
plan          from a dataset and a model, or none, to a model file
linear_probe  the same with features computed once, and a new last layer
"""
