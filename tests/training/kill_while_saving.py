"""kill -9 at random moments of saving, many times over; run as a program: FOLDER KILLS SEED.

Children are forked from one process that has imported PyTorch already, because that takes longer than all the rest.
Kills go on until ``AMID`` have fallen into the middle of a save, of ten times as many at most. Prints how many did.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from vadis.training.checkpoint import Checkpoint, load_newest, save_checkpoint

SIZE = 300_000  # floats per tensor
AMID = 3  # kills in the middle of a save; how many of 20 are depends on the disk


def checkpoint_for(step: int) -> Checkpoint:
    tensors = {"network.a": torch.full((SIZE,), float(step)), "momentum.a": torch.full((SIZE,), -float(step))}
    return Checkpoint(step, tensors, {"progress": {"step": step}})


def save_for_ever(folder: Path, step: int) -> None:
    while True:
        step += 1
        save_checkpoint(folder, checkpoint_for(step))


def newest_step(folder: Path) -> int:
    found = load_newest(folder)
    assert found is not None, "no checkpoint can be loaded"
    loaded, _, damaged = found
    assert damaged == [], "a checkpoint is there, but not whole"
    assert torch.equal(loaded.tensors["network.a"], torch.full((SIZE,), float(loaded.step)))
    assert loaded.state == {"progress": {"step": loaded.step}}
    return loaded.step


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    began = time.monotonic()
    save_checkpoint(folder, checkpoint_for(1))
    seconds = time.monotonic() - began
    chance, step, amid = random.Random(seed), 1, 0
    for number in range(10 * kills):
        if number >= kills and amid >= AMID:
            break
        child = os.fork()
        if child == 0:
            save_for_ever(folder, step)
        time.sleep(chance.uniform(0, 3 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        amid += any(".part" in path.name for path in folder.iterdir())
        newest = newest_step(folder)
        assert newest >= step, f"step {step} was saved, but {newest} is loaded"
        step = newest
    save_checkpoint(folder, checkpoint_for(step + 1))
    assert not any(".part" in path.name for path in folder.iterdir()), "leftovers stay"
    print(amid)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
