"""Looking at results: a page of an archive, pictures of training runs and of evaluations.

``page`` writes an HTML page of records, with what ``entries`` and ``thumbnails`` make of them; its markup, style and
script are in ``assets``. ``plots`` draws training runs and evaluations, ``filters`` the first layer, ``drawing`` holds
what all pictures share, ``run_log`` reads the log of a training run.
"""
