"""The tiny run as one of several processes; run by torchrun: FOLDER SECONDS_PER_CLIP CLIPS_IN_MEMORY CHANGES (JSON).

More clips at once than CLIPS_IN_MEMORY are too many for process 1.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from tests.training.stand_in import ForgetfulNetwork, TinyClips, run_tiny, tiny_network
from vadis.training.distributed import joined


class SlowClips(TinyClips):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def clip(self, epoch, index):
        time.sleep(self.seconds)
        return super().clip(epoch, index)


def main(folder: Path, seconds: float, clips_in_memory: int, changes: dict) -> int:
    torch.set_num_threads(1)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: asked.append(signum))
    with joined("cpu") as process:
        (folder / f"pid-{process.rank}").write_text(str(os.getpid()))
        network = tiny_network(seed=1 + process.rank)  # the main process's is to win
        if process.rank == 1:
            network = ForgetfulNetwork("forward", limit=clips_in_memory)
        _, outcome, _ = run_tiny(
            folder / "run",
            network,
            clips=SlowClips(seconds),
            process=process,
            resume=True,
            stop_requested=lambda: asked[0] if asked else 0,
            **changes,
        )
        (folder / f"outcome-{process.rank}").write_text(json.dumps([outcome.step, outcome.stopped_by]))
    return 128 + outcome.stopped_by if outcome.stopped_by else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
