"""The peer: OpenCV's TV-L1 flow. Runs in an environment of its own that has opencv-contrib-python-headless ≥ 5.

    python tvl1_opencv.py FRAMES.npz FLOW.npz

FRAMES.npz: frames uint8 (P, 2, H, W), pairs. FLOW.npz: frames, flow float32 (P, H, W, 2), seconds (P,) per pair after a
warm-up, opencv (its version). Besides the benchmark it makes tests/golden/tvl1_opencv_small.npz.
"""

import os
import sys
import time

import cv2
import numpy as np


def main(source: str, target: str) -> None:
    cv2.setNumThreads(len(os.sched_getaffinity(0)))
    frames = np.load(source)["frames"]
    flow, seconds = np.empty((len(frames), *frames.shape[2:], 2), np.float32), np.empty(len(frames))
    for i in (0, *range(len(frames))):
        start = time.perf_counter()
        # A new object every time: one that has met a small image keeps its smaller number of scales.
        flow[i] = cv2.optflow.DualTVL1OpticalFlow_create().calc(frames[i, 0], frames[i, 1], None)
        seconds[i] = time.perf_counter() - start
    np.savez_compressed(target, frames=frames, flow=flow, seconds=seconds, opencv=cv2.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
