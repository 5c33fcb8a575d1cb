"""Many files: nothing lost, nothing done twice, one record per input.

lock      one run at a time writes an output
journal   the results file: a header, then one record per input, appended; by it a run goes on after any end
parts     the same in many files of a folder, for runs that outgrow one
reading   results files → results: of several records of one input the last
shards    which of several machines takes which input
summary   counts, hours of video, speed
"""
