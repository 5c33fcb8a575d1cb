"""Results to look at: pages of archives and runs, pictures of runs, evaluations and filters, annotated videos."""
