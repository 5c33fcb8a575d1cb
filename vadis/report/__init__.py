"""Looking at results: pictures of training runs and of evaluations.

``plots`` draws them, ``drawing`` holds what all pictures share, ``run_log`` reads the log of a training run.
"""
