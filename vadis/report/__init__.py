"""Results to look at: a page of an archive or of a run, pictures of runs and evaluations, annotated videos.

``page`` writes an HTML page of records, ``run_page`` one of a training run or an evaluation; their markup, style and
script are in ``assets``. ``plots`` draws runs, evaluations and filters; ``annotate`` draws labels or flow into videos.
"""
