"""From the samples of a decoded frame to RGB of 8 bits as BT.709 displays show it.

Most frames take one step of swscale. High dynamic range (PQ and HLG) is converted after scaling, with all its bits:
signal → light, by SMPTE ST 2084 or ARIB STD-B67 → the tone curve → primaries of BT.709 (ITU-R BT.2087) → signal, by the
inverse of BT.1886 (gamma 2.4). The tone curve is the identity up to reference white (203 cd/m², ITU-R BT.2408), which
becomes (255, 255, 255); brighter light is white, and colours outside BT.709 lie on its border. HLG is taken for a
display of 1,000 cd/m², with its system gamma of 1.2 applied to each component, as zimg does it.
"""

from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.video.isolated.sandbox import memory_error
from vadis.video.metadata import Picture

Floats = NDArray[np.float32]
Samples = NDArray[np.uint16]

# Flags of FFmpeg's libswscale/swscale.h: SWS_BILINEAR, whose filter widens where pictures become smaller, so that
# nothing aliases; SWS_ACCURATE_RND and SWS_BITEXACT, with which every processor gives the same result.
_SCALER = 0x2 | 0x40000 | 0x80000

# Numbers of ITU-T H.273, which are those of FFmpeg's AVColorSpace, AVColorTransferCharacteristic, AVColorPrimaries.
_BT709, _UNSPECIFIED, _BT601, _SMPTE240M, _BT2020 = 1, 2, 5, 7, 9
_PQ, _HLG = 16, 18
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG and _JPEG

_CONVERTED = (_BT709, _UNSPECIFIED, 4, _BT601, 6, _SMPTE240M, _BT2020)
"""The matrices that swscale converts; 4 is FCC's, 6 is again BT.601's, as which it takes unspecified ones too."""

_NEAREST = dict.fromkeys((8, 16, 17), _BT709) | dict.fromkeys((10, 11, 14, 15), _BT2020)
"""The nearest of these by the number of another: of YCgCo, -Re and -Ro; and of BT.2020 with constant luminance,
Y'D'zD'x, ICtCp and IPT-PQ-C2 (Dolby Vision without a base layer). Any other is taken as unspecified."""

_DERIVED = (12, 13)  # from the primaries, without and with constant luminance
_NEAREST_TO_PRIMARIES = {4: 4, 6: _SMPTE240M, 7: _SMPTE240M, 9: _BT2020}

_CHROMATICITIES = {
    _BT709: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    **dict.fromkeys((6, 7), (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    _BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    **dict.fromkeys((11, 12), (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
}
"""x and y of red, green and blue by the number of the primaries (ITU-T H.273, table 2); white is D65."""

_REFERENCE_WHITE = 203.0  # cd/m² (ITU-R BT.2408)
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2  # cd/m² of the nominal display, and the system gamma that belongs to it (BT.2100)
_DISPLAY_GAMMA = 2.4  # ITU-R BT.1886
_BITS = 16  # of samples after scaling, by which tables are looked up
_DROPPED_BITS = 13  # of light as float32, to look up its signal: the 10 bits kept of its fraction err by 0.05 of 255
_BLOCK_PIXELS = 1 << 14  # converted at once: what is between then stays in the processor's cache


class Colours(NamedTuple):
    """The colour description that a file states, in the code points of ITU-T H.273."""

    matrix: int
    transfer: int
    primaries: int


BT709 = Colours(_BT709, _BT709, _BT709)


class ColourConverter:
    """Scales frames to RGB of BT.709; adds ``hdr`` and ``colours_approximated`` of ``metadata.FLAGS`` to ``flags``."""

    def __init__(self, flags: set[str]) -> None:
        self._flags = flags
        self._reformatter = VideoReformatter()  # which keeps its tables from frame to frame
        # Kept too: to ask the system for memory takes as long as half of the arithmetic.
        self._index = np.empty(0, np.intp)  # take is twice as fast with these indices as with smaller ones
        self._linear = self._light = np.empty(0, np.float32)

    def convert(self, frame: av.VideoFrame, width: int, height: int) -> Picture:
        """Return the frame as uint8 RGB (height, width, 3); raise VideoError where swscale cannot convert it."""
        matrix = _replacement(frame)
        if matrix is not None:
            self._flags.add("colours_approximated")
        if _is_hdr(frame):
            self._flags.add("hdr")
            unstated = frame.colorspace == _UNSPECIFIED  # ITU-R BT.2100 knows no other matrix
            return self._show(frame, self._samples(frame, width, height, _BT2020 if unstated else matrix))
        if _is_grey(frame) and frame.color_range == _LIMITED_RANGE:
            table = np.rint(255 * _signals(*_black_and_white(frame))).astype(np.uint8)
            return np.stack([table[each] for each in self._samples(frame, width, height, matrix)], axis=-1)
        return np.asarray(self._scaled(frame, width, height, "rgb24", matrix).to_ndarray(), dtype=np.uint8)

    def _show(self, frame: av.VideoFrame, samples: list[Samples]) -> Picture:
        """Return a frame of high dynamic range as the picture of BT.709 with 8 bits."""
        lights, signals = _light_table(frame.color_trc, *_black_and_white(frame)), _signal_table()
        gamut = _to_bt709(frame.color_primaries if frame.color_primaries in _CHROMATICITIES else _BT2020)[:, [1, 2, 0]]
        height, width = samples[0].shape
        if self._index.size < (size := 3 * max(width, _BLOCK_PIXELS)):
            self._index = np.empty(size, np.intp)
            self._linear, self._light = np.empty((2, size), np.float32)
        picture = np.empty((height, width, 3), np.uint8)
        num_rows = max(1, _BLOCK_PIXELS // width)
        for top in range(0, height, num_rows):
            rows = picture[top : top + num_rows]
            index = self._index[: rows.size].reshape(3, -1)
            linear, light = (each[: rows.size].reshape(3, -1) for each in (self._linear, self._light))
            np.stack([each[top : top + num_rows] for each in samples], out=index.reshape(3, -1, width))
            lights.take(index, out=linear, mode="clip")  # by default it would copy; there is nothing to clip
            np.matmul(gamut, linear, out=light)
            np.right_shift(light.view(np.uint32), _DROPPED_BITS, out=index, casting="unsafe")
            np.stack(list(signals.take(index).reshape(3, -1, width)), axis=-1, out=rows)
        return picture

    def _samples(self, frame: av.VideoFrame, width: int, height: int, matrix: int | None) -> list[Samples]:
        """Return green, blue and red of a frame, (height, width) each, with 16 bits; all the same where it is grey."""
        kind = "gray16le" if _is_grey(frame) else "gbrp16le"
        planes = self._scaled(frame, width, height, kind, matrix).planes
        samples = [np.frombuffer(memoryview(plane), "<u2").reshape(height, -1)[:, :width] for plane in planes]
        return samples * (3 // len(samples))

    def _scaled(self, frame: av.VideoFrame, width: int, height: int, kind: str, matrix: int | None) -> av.VideoFrame:
        try:  # the matrix is that of the source and of the result
            return self._reformatter.reformat(frame, width, height, kind, matrix, matrix, _SCALER, threads=1)
        except Exception as error:  # PyAV raises whatever FFmpeg's code maps to
            message = f"pixels of the format {frame.format.name} cannot be converted"
            raise memory_error(error) or VideoError("decode_failed", message) from error


def output_colours(frame: av.VideoFrame) -> Colours | None:
    """Return the colours to tag converted frames with, so that players show them like this one; None: no tags."""
    if _is_hdr(frame) or _is_rgb(frame) or _replacement(frame) is not None:
        return BT709
    stated = Colours(frame.colorspace, frame.color_trc, frame.color_primaries)
    return None if set(stated) == {_UNSPECIFIED} else stated


def _is_hdr(frame: av.VideoFrame) -> bool:
    return frame.color_trc in (_PQ, _HLG)


def _replacement(frame: av.VideoFrame) -> int | None:
    """Return the matrix to take instead of the frame's own, None where that can be converted."""
    matrix = frame.colorspace
    if matrix in _CONVERTED or _is_rgb(frame) or _is_grey(frame):
        return None
    if matrix in _DERIVED:
        return _NEAREST_TO_PRIMARIES.get(frame.color_primaries, _BT709)
    return _NEAREST.get(matrix, _BT601)


def _is_grey(frame: av.VideoFrame) -> bool:
    return len(frame.format.components) < 3 and not _is_rgb(frame)


def _is_rgb(frame: av.VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.has_palette


def _black_and_white(frame: av.VideoFrame) -> tuple[int, int]:
    """Return the samples that are black and white after scaling; swscale adds bits as zeros, and stretches no grey."""
    if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") or _is_rgb(frame):
        bits = min(_BITS, frame.format.components[0].bits)
        return 0, ((1 << bits) - 1) << (_BITS - bits)
    black, white = (16, 235) if _is_grey(frame) else (0, 255)
    return black << (_BITS - 8), white << (_BITS - 8)


def _signals(black: int, white: int) -> NDArray[np.float64]:
    """Return the signal, [0, 1] from black to white, by the sample."""
    return np.clip((np.arange(1 << _BITS) - black) / (white - black), 0, 1)


@lru_cache
def _light_table(transfer: int, black: int, white: int) -> Floats:
    """Return light, 1 at reference white, by the sample."""
    signal = _signals(black, white)
    light = _pq_to_light(signal) if transfer == _PQ else _hlg_to_light(signal)
    return np.asarray(light / _REFERENCE_WHITE, np.float32)


@lru_cache
def _signal_table() -> NDArray[np.uint8]:
    """Return signals of 8 bits by the first bits of light as float32: finer steps in the dark, black if negative."""
    table = np.zeros(1 << (32 - _DROPPED_BITS), np.uint8)
    one = int(np.float32(1).view(np.uint32)) >> _DROPPED_BITS
    middles = ((np.arange(one, dtype=np.uint32) << _DROPPED_BITS) + (1 << (_DROPPED_BITS - 1))).view(np.float32)
    table[:one] = np.rint(255 * middles ** (1 / _DISPLAY_GAMMA))
    table[one : len(table) // 2] = 255
    return table


def _pq_to_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cd/m² by SMPTE ST 2084, equation 4.1."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg_to_light(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cd/m² on the nominal display: the inverse of ARIB STD-B67's transfer function, and the system gamma."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(_HLG_PEAK * scene**_HLG_GAMMA)


@lru_cache
def _to_bt709(primaries: int) -> Floats:
    """Return the matrix (3, 3) from linear light in these primaries to that in BT.709's."""
    return np.asarray(np.linalg.solve(_to_xyz(_BT709), _to_xyz(primaries)), np.float32)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    """Return the matrix (3, 3) from R, G, B to X, Y, Z (SMPTE RP 177)."""
    points = np.array(_CHROMATICITIES[primaries]).reshape(3, 2)
    columns = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]  # of luminance 1
    x, y = 0.3127, 0.3290  # D65
    weights = np.linalg.solve(columns, np.array([x, y, 1 - x - y]) / y)
    return np.asarray(columns * weights)
