"""A file on disk → frames in time.

sources (what was typed → files) → container (what a file is) → stream (which stream, and what its header promises) →
decoding (packets → frames, past damage) → seeking (straight to a clip) → timegrid (their times → the 25 fps grid) →
picture (frame → upright RGB) → reader (all of these: ``open_video``) → isolation (the same in child processes:
``Decoders``) → remote (the same for what has to be fetched first) → ahead (in a thread, before it is needed) → windows
(frames → chunks and clips). facts and frames hold what a video gives and what is told of it. Of isolation: child is the
program, confinement what it gives up, messages the language of the pipe, decoder_process the parent's side of it.
"""
