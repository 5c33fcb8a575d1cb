"""A file on disk → frames in time.

sources (what was typed → files) → container (what a file is) → stream (which stream, and what its header promises) →
decoding (packets → frames, past damage) → seeking (straight to a clip) → timegrid (their times → the 25 fps grid) →
picture (frame → upright RGB) → reader (all of these: ``open_video``) → windows (frames → chunks and clips). facts holds
what is told of a video.
"""
