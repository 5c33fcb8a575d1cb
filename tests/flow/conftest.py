"""Flow that costs nothing, for the tests of what is done with it."""

import numpy as np
import pytest


def cheap_flow(frames):
    """uint8 (T, H, W, 3) → smooth float32 (T, 2, H, W) that tells the frames apart, within ±25 px."""
    red, green = frames[..., 0].astype(np.float32), frames[..., 1].astype(np.float32)
    return np.stack([red / 255 * 50 - 25, 10 - green / 255 * 20], axis=1)


@pytest.fixture
def instant_flow(monkeypatch):
    """Stores are filled with ``cheap_flow``; the value tells how many videos were begun."""
    begun = []

    def with_flow(chunks, *rest):
        begun.append(1)
        return ((frames, cheap_flow(frames)) for frames in chunks)

    monkeypatch.setattr("vadis.flow.store.with_flow", with_flow)
    return begun
