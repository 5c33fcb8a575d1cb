"""Tiny runs, one after the other, as one of several processes; run by torchrun: FOLDER HOW (JSON) [FOLDER HOW]…

HOW: ``seconds`` per clip; ``clips_in_memory``, more at once than which are too many for process 1;
``clips_until_failure``, after which process 1 gets no other; ``clips_until_long``, after which process 0 waits for
minutes; ``heartbeat_seconds``; the rest goes to ``run_tiny``. Ends as the command line does.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

import vadis.cli
from tests.training.stand_in import ForgetfulNetwork, TinyClips, run_tiny, tiny_network
from vadis.cli import signals
from vadis.errors import VadisError
from vadis.training import distributed


class SlowClips(TinyClips):
    """Clips that take their time, and of which one may not come at all."""

    def __init__(self, seconds: float, last: int | None, last_quick: int | None) -> None:
        super().__init__()
        self.seconds, self.last, self.last_quick, self.loaded = seconds, last, last_quick, 0

    def clip(self, epoch, index):
        time.sleep(300 if self.loaded == self.last_quick else self.seconds)
        if self.loaded == self.last:
            raise VadisError(f"clip-{index}.avi is lost")
        self.loaded += 1
        return super().clip(epoch, index)


def main(prog_name: str) -> None:
    runs = [(Path(folder), json.loads(how)) for folder, how in zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
    torch.set_num_threads(1)
    distributed.HEARTBEAT_SECONDS = runs[0][1].pop("heartbeat_seconds", distributed.HEARTBEAT_SECONDS)
    with distributed.join_group("cpu") as process, signals.deferred():
        for folder, how in runs:
            train(folder, process, **how)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (runs[0][0] / f"threads-{process.rank}").write_text(json.dumps(threads))


def train(
    folder: Path,
    process: distributed.Process,
    *,
    seconds: float = 0.0,
    clips_in_memory: int = 99,
    clips_until_failure: int | None = None,
    clips_until_long: int | None = None,
    **how: object,
) -> None:
    (folder / f"pid-{process.rank}").write_text(str(os.getpid()))
    network = tiny_network(seed=1 + process.rank)  # the main process's is to win
    if process.rank == 1:
        network, clips_until_long = ForgetfulNetwork("forward", clips_in_memory), None
    else:
        clips_until_failure = None
    clips = SlowClips(seconds, clips_until_failure, clips_until_long)
    asked = {"clips": clips, "process": process, "resume": True, "stop_requested": signals.pending, **how}
    _, outcome, _ = run_tiny(folder / "run", network, **asked)
    (folder / f"outcome-{process.rank}").write_text(json.dumps([outcome.step, outcome.stopped_by]))
    if outcome.stopped_by:
        raise signals.Interrupted(outcome.stopped_by)


if __name__ == "__main__":
    vadis.cli.app = main
    vadis.cli.main()
