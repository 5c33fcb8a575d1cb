"""From a labelled dataset to a network that knows its classes.

In this order: recipes, loader, distributed, log, checkpoint, loop, plan (of a whole model), linear_probe.
"""
