"""Which container and codec should hold flow for training? Prints the table of docs/flow-store.md.

    python tests/benchmarks/flow_store.py CLIP... [--frames 128] [--windows 40]

Flow of each clip is computed once, quantised as the store does it, and written by every candidate. Measured are bytes
per frame of flow, frames per second when a file is read from its start, frames per second when windows of 64 frames
at random places are read (opening the file included, as a data loader has to), and the error in px per frame against
the flow truncated to ±20 px. One thread throughout; files are in the page cache.
"""

import argparse
import itertools
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vadis.flow import to_gray, tvl1
from vadis.flow.store import dequantize, quantize
from vadis.video.reader import open_video

WINDOW = 64


@dataclass(frozen=True)
class Candidate:
    """An encoder of FFmpeg with its options, in a container; or, without a codec, a peer without FFmpeg."""

    name: str
    extension: str
    codec: str | None = None
    pix_fmt: str = "gray"
    options: dict[str, str] = field(default_factory=dict)


def mjpeg(quality: int, container: str = ".mkv") -> Candidate:
    options = {"qmin": str(quality), "qmax": str(quality), "b": "1G"}
    return Candidate(f"Motion JPEG, q {quality}", container, "mjpeg", "yuvj420p", options)


def h264(quantiser: int) -> Candidate:
    options = {"g": "1", "qp": str(quantiser), "preset": "veryfast", "tune": "fastdecode", "bf": "0"}
    return Candidate(f"H.264 intra, qp {quantiser}", ".mkv", "libx264", "gray", options)


CANDIDATES = (
    Candidate("npz of the whole video", ".npz"),
    Candidate("zlib, frame by frame", ".zlib"),
    Candidate("PNG", ".mov", "png"),
    Candidate("FFV1", ".mkv", "ffv1", options={"level": "3", "g": "1", "slices": "4"}),
    Candidate("FFVHUFF", ".avi", "ffvhuff", options={"pred": "median"}),
    Candidate("MagicYUV", ".avi", "magicyuv", options={"pred": "median"}),
    Candidate("JPEG-LS", ".avi", "jpegls"),
    mjpeg(1),
    mjpeg(2),
    mjpeg(3),
    mjpeg(5),
    h264(0),
    h264(6),
    h264(12),
    h264(18),
    mjpeg(1, ".mp4"),
)


def write(path: Path, codes: np.ndarray, candidate: Candidate) -> None:
    """``codes`` uint8 (T, 2 H, W), dx above dy."""
    if candidate.codec is None:
        write_peer(path, codes)
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream(candidate.codec, rate=Fraction(25), options=dict(candidate.options))
        stream.height, stream.width, stream.pix_fmt = *codes.shape[1:], candidate.pix_fmt
        stream.codec_context.thread_count = 1
        for i, picture in enumerate(codes):
            container.mux(stream.encode(grey_frame(picture, i, candidate.pix_fmt)))
        container.mux(stream.encode(None))


def grey_frame(picture: np.ndarray, index: int, pix_fmt: str) -> av.VideoFrame:
    if pix_fmt == "gray":
        frame = av.VideoFrame.from_ndarray(picture, format="gray")
    else:
        frame = av.VideoFrame(picture.shape[1], picture.shape[0], pix_fmt)
        for plane, content in zip(frame.planes, (picture, None, None), strict=True):
            rows = np.full((plane.height, plane.line_size), 128, np.uint8)
            if content is not None:
                rows[:, : plane.width] = content
            plane.update(rows)
    frame.pts, frame.time_base = index, Fraction(1, 25)
    return frame


def read(path: Path, start: int, count: int) -> np.ndarray:
    """Frames ``[start, start + count)``, uint8 (count, 2 H, W)."""
    if path.suffix in (".npz", ".zlib"):
        return read_peer(path, start, count)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if start:
            container.seek(round(start / 25 / stream.time_base), stream=stream)
        frames = itertools.islice(wanted(container, stream, start), count)
        return np.stack([luma(frame) for frame in frames])


def wanted(container, stream, start: int) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        if round(frame.pts * stream.time_base * 25) >= start:
            yield frame


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def write_peer(path: Path, codes: np.ndarray) -> None:
    if path.suffix == ".npz":
        np.savez_compressed(path, codes=codes)
        return
    packed = [zlib.compress(picture.tobytes(), 6) for picture in codes]
    ends = np.cumsum([0, *map(len, packed)])
    head = np.array([*codes.shape, *ends], np.int64).tobytes()
    path.write_bytes(head + b"".join(packed))


def read_peer(path: Path, start: int, count: int) -> np.ndarray:
    if path.suffix == ".npz":
        return np.load(path)["codes"][start : start + count]
    with path.open("rb") as file:
        length, height, width = np.frombuffer(file.read(24), np.int64)
        ends = np.frombuffer(file.read(8 * (length + 1)), np.int64)
        file.seek(8 * (4 + length) + ends[start])
        return np.stack(
            [
                np.frombuffer(zlib.decompress(file.read(ends[i + 1] - ends[i])), np.uint8).reshape(height, width)
                for i in range(start, min(start + count, length))
            ]
        )


def flow_of(path: Path, num_frames: int) -> np.ndarray:
    """float32 (T, 2, H, W)"""
    with open_video(path) as video:
        frames = [frame.pixels for frame in itertools.islice(video, num_frames + 1)]
    return tvl1(to_gray(np.stack(frames)))


def measure(candidate: Candidate, flows: list[np.ndarray], num_windows: int, folder: Path) -> str:
    """A row of the table."""
    rng = np.random.default_rng(0)
    num_bytes = num_frames = write_seconds = read_seconds = window_seconds = windows_read = 0.0
    errors = []
    for i, flow in enumerate(flows):
        path, codes = folder / f"{i}{candidate.extension}", quantize(flow)
        began = time.perf_counter()
        write(path, codes, candidate)
        write_seconds += time.perf_counter() - began
        began = time.perf_counter()
        back = read(path, 0, len(flow))
        read_seconds += time.perf_counter() - began
        assert back.shape == codes.shape, (back.shape, codes.shape)
        errors.append(np.abs(dequantize(back).reshape(flow.shape) - flow.clip(-20, 20)).ravel()[::7])
        num_bytes, num_frames = num_bytes + path.stat().st_size, num_frames + len(flow)
        starts = rng.integers(0, len(flow) - WINDOW + 1, num_windows // len(flows))
        began = time.perf_counter()
        for start in starts:
            window = read(path, int(start), WINDOW)
        window_seconds, windows_read = window_seconds + time.perf_counter() - began, windows_read + len(starts)
        assert np.array_equal(window, back[int(start) : int(start) + WINDOW]), "a window differs from the whole"
    error = np.concatenate(errors)
    return (
        f"| {candidate.name} | {candidate.extension[1:]} | {num_bytes / num_frames:,.0f} "
        f"| {num_frames / write_seconds:,.0f} | {num_frames / read_seconds:,.0f} "
        f"| {windows_read * WINDOW / window_seconds:,.0f} | {error.mean():.3f} | {np.percentile(error, 99):.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=128, help="of each clip, at most")
    parser.add_argument("--windows", type=int, default=40, help="random windows read with each candidate")
    options = parser.parse_args()
    flows = [flow_of(clip, options.frames) for clip in options.clips]
    print("| codec | container | bytes/frame | written/s | read/s | in windows of 64/s | mean error px | 99 % px |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for candidate in CANDIDATES:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(candidate, flows, options.windows, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
