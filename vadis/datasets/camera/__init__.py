"""Videos made here, whose class is how the camera moves: labels that are right by construction, from a seed alone.

paths      where the camera is at each moment: what makes the class
scenes     what there is to see: textures in layers of depth, and things that move by themselves
filming    a path through a scene → pictures, as a real camera would give them
writing    all videos of a dataset, on every processor, each whole or not at all

A label names the motion of the camera, not of the picture: in a ``pan left`` the view travels left over the scene, so
what is seen moves right; in a ``tilt up`` it moves down; in a ``zoom in`` it grows; when the camera rolls clockwise,
the picture turns counter-clockwise.

All motions are measured as the networks see them: px of a frame whose short side has 256 px, per 1/25 s. The classes
keep a distance from each other (``paths``), so that a label is never a matter of opinion.
"""

from vadis.datasets.camera.paths import CLASSES
from vadis.datasets.camera.writing import Amount, write_dataset

__all__ = ["CLASSES", "Amount", "write_dataset"]
