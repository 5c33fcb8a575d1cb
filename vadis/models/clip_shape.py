"""What a network says to a clip that it cannot take."""

from torch import Tensor

FRAME_SIZE = 224  # px, height and width of what every Inception-v1 sees (paper, section 2.5)


def check_clip(name: str, x: Tensor, channels: int, frames: int | None, size: int = FRAME_SIZE) -> None:
    """Raise ValueError unless ``x`` is (B, ``channels``, ``frames``, ``size``, ``size``), with one clip at least.

    ``frames`` None stands for any number from 1 on; ``name`` is the network's, for the message.
    """
    batch, *rest = x.shape if x.ndim == 5 else (0, 0, 0, 0, 0)
    wanted = [channels, rest[1] if frames is None else frames, size, size]
    if batch < 1 or rest[1] < 1 or rest != wanted:
        length = "T" if frames is None else frames
        raise ValueError(
            f"{name} takes clips of shape (B, {channels}, {length}, {size}, {size}), got one of {tuple(x.shape)}"
        )


def check_long_clip(name: str, x: Tensor, channels: int, frames: int) -> None:
    """Raise ValueError unless ``x`` is (B, ``channels``, T, H, W), with a clip, ``frames`` and 224 px at least."""
    batch, found, length, *size = x.shape if x.ndim == 5 else (0, 0, 0, 0, 0)
    if batch < 1 or found != channels or length < frames or min(size) < FRAME_SIZE:
        wanted = f"(B, {channels}, T, {FRAME_SIZE}, {FRAME_SIZE}) with at least {frames} frames"
        raise ValueError(f"{name} takes clips of shape {wanted}, got one of {tuple(x.shape)}")
