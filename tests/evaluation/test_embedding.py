"""What I3D sees of a video by each protocol, and the record of it: against rules written down, and against PyTorch."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.make_model import make_model
from tests.synthetic import moving_texture, numbered_frames, read_number, write_video
from vadis import UsageError, load_model
from vadis.cli.fvd import PROTOCOL_NAMES
from vadis.evaluation.embedding import (
    PROTOCOLS,
    EmbeddedVideo,
    Embedding,
    check_model,
    embed_clip,
    network_frames,
    stamp_of,
)
from vadis.evaluation.frechet import embed
from vadis.preprocessing import CROP
from vadis.video.isolated.pool import Decoders
from vadis.video.sources import find_videos, picture_names


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("m") / "m.safetensors", width=1 / 16), "cpu")


def levels(x: np.ndarray) -> np.ndarray:
    """From [-1, 1] back to 0 to 255."""
    return (x + 1) * 127.5


def test_the_command_names_every_protocol():
    assert tuple(PROTOCOLS) == PROTOCOL_NAMES


def test_resizing_is_that_of_tensorflow_1():
    """Pixel i of the output lies at i · in / out; there is nothing beyond the last pixel to interpolate with."""
    ramp = np.zeros((1, 2, 4, 3), np.uint8)
    ramp[0, 0, :, 0], ramp[0, 1, :, 0] = (0, 56, 112, 168), (100, 156, 212, 255)
    found = levels(network_frames(ramp))[0, :, :, 0]
    np.testing.assert_allclose(found[0, :168], np.arange(168), atol=1e-3)  # 56 columns of the output each
    np.testing.assert_allclose(found[0, 168:], 168, atol=1e-3)
    np.testing.assert_allclose(found[:112, 0], np.arange(112) * 100 / 112, atol=1e-3)
    np.testing.assert_allclose(found[112:, 0], 100, atol=1e-3)
    large = np.arange(448, dtype=np.int64).reshape(1, 448, 1, 1) % 251 * np.ones((1, 1, 448, 3))
    every_second = large.astype(np.uint8)[:, ::2, ::2]  # smaller: no antialiasing
    np.testing.assert_allclose(levels(network_frames(large.astype(np.uint8))), every_second, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 256), (180, 320), (333, 250)])
def test_other_resizings_are_those_of_pytorch(height, width):
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    square = functional.interpolate(x, size=(CROP, CROP), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(levels(network_frames(frames, "half-pixel")), square.permute(0, 2, 3, 1), atol=1e-2)
    scale = CROP / min(height, width)
    size = [CROP if length == min(height, width) else int(np.ceil(length * scale)) for length in (height, width)]
    whole = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    top, left = ((length - CROP) // 2 for length in size)
    cut = whole[:, :, top : top + CROP, left : left + CROP]
    np.testing.assert_allclose(levels(network_frames(frames, "crop")), cut.permute(0, 2, 3, 1), atol=1e-2)


def test_a_row_is_the_training_form_s_logits_averaged_over_time(small_model):
    model = check_model(small_model.only(("rgb",)))
    frames = network_frames(moving_texture(21, (80, 60)))
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None]
    with torch.inference_mode():
        expected = small_model.module("rgb")(x).mean(dim=2)[0].numpy()
    row = embed_clip({"rgb": frames}, model)
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def records(embedding: Embedding, paths, jobs: int = 1) -> list[EmbeddedVideo]:
    return list(embedding.embed(map(str, paths), jobs=jobs))


def test_a_file_an_array_and_pictures_of_the_same_frames_are_the_same(tmp_path, small_model):
    """At another rate than 25 per second, and named so that only the natural order is right."""
    write_video(tmp_path / "a.avi", num_frames=12, size=(80, 60), fps=10, codec="ffv1")  # lossless
    frames = moving_texture(12, (80, 60))
    np.save(tmp_path / "a.npy", frames[None])
    np.savez(tmp_path / "b.npz", frames)
    (tmp_path / "pictures").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{number}.png")
    names = ("a.avi", "a.npy[0]", "b.npz", "pictures")
    found = records(Embedding(check_model(small_model.only(("rgb",)))), [tmp_path / name for name in names])
    assert [(each.status, each.sliding["frames"]) for each in found] == [("ok", 12)] * 4
    assert len({each.frames_sha256 for each in found}) == len({each.row for each in found}) == 1
    np.testing.assert_allclose(found[0].numbers, embed([frames], small_model).mean, atol=1e-6)
    assert EmbeddedVideo.from_json(found[0].to_json()) == found[0]


def test_an_array_that_has_to_be_in_memory_is_there_once(tmp_path, small_model, monkeypatch):
    np.savez(tmp_path / "a.npz", np.stack([moving_texture(9, (48, 32), seed=seed) for seed in range(4)]))
    loaded, load = list[str](), np.load
    monkeypatch.setattr(np, "load", lambda path, **how: loaded.append(path) or load(path, **how))
    paths = [tmp_path / f"a.npz[{number}]" for number in range(4)]
    found = records(Embedding(check_model(small_model.only(("rgb",)))), paths, jobs=4)
    assert [each.status for each in found] == ["ok"] * 4 and len(loaded) == 1


def test_each_video_has_one_core_however_many_there_are(tmp_path, small_model):
    """Or its last digits would depend on their number."""
    np.save(tmp_path / "a.npy", np.stack([moving_texture(9, (48, 32), seed=seed) for seed in range(2)]))
    model, seen, before = check_model(small_model.only(("rgb",))), list[int](), torch.get_num_threads()
    hook = model.networks["rgb"].register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        records(Embedding(model), [tmp_path / f"a.npy[{number}]" for number in range(2)], jobs=2)
        assert (seen, torch.get_num_threads()) == ([1, 1], 2)
    finally:
        hook.remove()
        torch.set_num_threads(before)


def test_a_random_clip_depends_on_seed_and_name_alone(tmp_path, small_model):
    frames = numbered_frames(range(60), (160, 96))
    write_video(tmp_path / "a.avi", frames=frames, codec="ffv1")
    write_video(tmp_path / "b.webm", frames=frames, codec="libvpx")  # whose header has no number of frames
    model = check_model(small_model.only(("rgb",)))

    def starts(seed: int) -> list[int]:
        embedding = Embedding(model, frames=9, random_start=True, seed=seed)
        return [each.sliding["first_frame"] for each in records(embedding, [tmp_path / "a.avi"])]

    assert starts(1) == starts(1)
    several = [starts(seed)[0] for seed in range(4)]
    assert len(set(several)) > 1 and all(0 <= start <= 51 for start in several)
    (webm,) = records(Embedding(model, frames=9, random_start=True), [tmp_path / "b.webm"])
    assert webm.status == "ok" and webm.sliding["frames"] == 9
    part = {"start_frame": several[0], "max_frames": 2}
    with Decoders() as decoders, decoders.open_source(tmp_path / "a.avi", **part) as video:
        assert [read_number(frame.pixels) for frame in video] == [several[0], several[0] + 1]


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((8, 32, 32, 3), np.uint8), "too_short"),
        (np.zeros((9, 3, 32, 32), np.uint8), "not_a_video"),
        (np.zeros((9, 32, 32, 3), np.int64), "not_a_video"),
        (np.zeros((9, 32), np.uint8), "not_a_video"),
        (np.full((9, 224, 224, 3), np.nan, np.float32), "not_finite"),
        (np.full((9, 224, 224, 3), np.inf, np.float32), "not_finite"),
    ],
)
def test_an_array_that_is_no_video_is_a_record(tmp_path, small_model, array, code):
    np.save(tmp_path / "a.npy", array)
    (found,) = records(Embedding(check_model(small_model.only(("rgb",)))), [tmp_path / "a.npy"])
    assert (found.status, found.error_code) == ("error", code)


def test_a_video_of_which_a_part_is_missing_is_no_sample(tmp_path, small_model):
    path = write_video(tmp_path / "a.ts", num_frames=40, size=(80, 60), codec="mpeg2video")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    (found,) = records(Embedding(check_model(small_model.only(("rgb",)))), [path])
    assert (found.status, found.error_code) == ("error", "truncated_or_incomplete")


def test_damaged_pictures_are_a_record(tmp_path, small_model):
    for folder, damage in (("cut", lambda content: content[:200]), ("other", lambda content: b"no picture")):
        (tmp_path / folder).mkdir()
        for number, frame in enumerate(moving_texture(9, (80, 60))):
            Image.fromarray(frame).save(tmp_path / folder / f"{number}.png")
        path = tmp_path / folder / "4.png"
        path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "sizes").mkdir()
    for number in range(9):
        Image.new("RGB", (32 + number, 32)).save(tmp_path / "sizes" / f"{number}.png")
    model = check_model(small_model.only(("rgb",)))
    found = records(Embedding(model), [tmp_path / name for name in ("cut", "other", "sizes")])
    assert [each.error_code for each in found] == ["truncated_or_incomplete", "decode_failed", "decode_failed"]


def test_motion_is_seen_of_the_same_frames(tmp_path, small_model):
    write_video(tmp_path / "a.avi", num_frames=10, size=(80, 60), codec="ffv1")
    by_stream = {
        streams: records(Embedding(check_model(small_model.only(streams))), [tmp_path / "a.avi"])[0].numbers
        for streams in (("rgb",), ("flow",), ("rgb", "flow"))
    }
    both = by_stream[("rgb",)] + by_stream[("flow",)]
    assert np.abs(by_stream[("flow",)]).max() > 0
    np.testing.assert_allclose(by_stream[("rgb", "flow")], both, atol=1e-6 * np.abs(both).max())


def test_another_architecture_is_refused(small_model):
    with pytest.raises(UsageError):
        check_model(replace(small_model, card=replace(small_model.card, architecture="c3d")))


def test_a_walk_finds_arrays_and_folders_of_pictures(tmp_path: Path):
    (tmp_path / "class" / "clip").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "class" / "clip" / "1.png")
    np.save(tmp_path / "class" / "a.npy", np.zeros(1))
    write_video(tmp_path / "b.mp4", num_frames=2)
    found = find_videos([tmp_path], arrays=True)
    assert sorted(Path(each.path).name for each in found) == ["a.npy", "b.mp4", "clip"]
    assert [Path(each.path).name for each in find_videos([tmp_path])] == ["b.mp4"]


def test_pictures_beside_videos_are_no_frames_and_any_names_have_an_order(tmp_path: Path):
    write_video(tmp_path / "b.mp4", num_frames=2)
    for name in ("preview", "٣5", "a5", "a10"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    assert [Path(each.path).name for each in find_videos([tmp_path], arrays=True)] == ["b.mp4"]
    names = picture_names(str(tmp_path))
    assert names.index("a5.png") < names.index("a10.png") and len(names) == 4


def test_a_folder_of_pictures_is_another_when_one_of_them_is(tmp_path: Path):
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    before = stamp_of(str(tmp_path))
    changed = tmp_path / "1.png"
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 10**9))
    assert stamp_of(str(tmp_path)) != before
