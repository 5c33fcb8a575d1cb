"""Write a synthetic ``holiday.mp4``: python tests/write_holiday.py OUT.mp4 [SECONDS]"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.synthetic import write_video

if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 4.0
    print(write_video(sys.argv[1], num_frames=round(25 * seconds), size=(320, 240), seed=7))
