"""Frames in time from a file on disk.

sources (inputs → files) → container (what a file is, and whether it is whole) → decoding (its video stream: what the
header promises, and packets → frames, past damage, straight to a clip) → timegrid (times → the 25 fps grid) → picture
(frame → upright RGB; colour) → reader (all of these: ``open_video``) → isolated (the same in child processes:
``Decoders``) → remote (the same for what has to be fetched first) → readahead (in a thread, before it is needed) →
windows (frames → clips). metadata holds what a video gives and what is known of it; encoder writes videos.
"""
