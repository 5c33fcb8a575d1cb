"""Frames in time from a file: sources (inputs → files) → container, decoding, timegrid, picture and colour → reader
(``open_video``) → isolated (the same in child processes: ``Decoders``) → remote (of what is fetched first) → readahead.
"""
