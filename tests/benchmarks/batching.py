"""Do windows of several videos gain anything by going through the network together, and is the answer the same?

    python -m tests.benchmarks.batching [--device cuda]

For four windows one by one and in one pass, the least of ``--rounds`` in turn: processor seconds of one thread, or on a
GPU seconds until the answers are in the processor's memory.
"""

import argparse
import time

import numpy as np
import torch

from vadis.inference.predict import of_windows
from vadis.models import Model, ModelCard, build_networks

WINDOWS = 4
LENGTHS = (64, 16)  # frames


def random_i3d(width: float, device: torch.device) -> Model:
    card = ModelCard("random", "i3d", ("rgb",), tuple(map(str, range(400))), width, window_frames=64)
    torch.manual_seed(0)
    networks = {name: network.eval() for name, network in build_networks(card).items()}
    for weights in networks["rgb"].parameters():
        if weights.dim() > 1:
            torch.nn.init.kaiming_normal_(weights)
    return Model(card, {name: network.to(device) for name, network in networks.items()}, device)


def compared(model: Model, num_frames: int, rounds: int) -> tuple[float, float, bool]:
    """Seconds one by one and together, and whether the logits are the same to the last bit."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    rng = np.random.default_rng(0)
    clips = [{"rgb": rng.integers(0, 256, (num_frames, 224, 224, 3), np.uint8)} for _ in range(WINDOWS)]
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        began = clock()
        alone = [of_windows([clip], model, "Logits", False)[0] for clip in clips]
        between = clock()
        together = of_windows(clips, model, "Logits", False)
        taken[0].append(between - began)
        taken[1].append(clock() - between)
    same = all(np.array_equal(a["rgb"], b["rgb"]) for a, b in zip(alone, together, strict=True))
    return min(taken[0]), min(taken[1]), same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channel counts")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu", type=torch.device)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = random_i3d(options.width, options.device)
    with torch.inference_mode():
        for num_frames in LENGTHS:
            alone, together, same = compared(model, num_frames, options.rounds)
            answer = "the same" if same else "not the same"
            print(f"{num_frames} frames: one by one {alone:.2f} s, together {together:.2f} s, {answer} to the last bit")


if __name__ == "__main__":
    main()
