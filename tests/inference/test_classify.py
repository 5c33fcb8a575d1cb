"""The road, end to end, with a narrow network of random parameters."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bfloat16 import emulated_bfloat16
from tests.make_model import make_model
from tests.matching import containing
from tests.plain_pass import cropped_clip, plain_outputs
from tests.synthetic import moving_texture, write_video
from vadis.errors import UsageError, VideoError
from vadis.formats import srt
from vadis.inference.classify import ClassifyOptions, classify, classify_many
from vadis.inference.predict import Progress, Sliding
from vadis.inference.scores import softmax
from vadis.models import Model
from vadis.preprocessing import centre_crop, network_input
from vadis.results import NO_CLEAR_LABEL, VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.reader import open_video
from vadis.weights.model_file import load_model_file

pytestmark = pytest.mark.usefixtures("quick_tvl1")

LOGITS_TOLERANCE = 1e-4  # of a score, beside a plain pass of the training form over the whole clip


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", width=1 / 16, classes=5)


@pytest.fixture(scope="module")
def model(model_path: Path) -> Model:
    return load_model_file(model_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def scores_of(result: VideoResult, model: Model) -> list[float]:
    """The scores of a record in the order of the model's labels."""
    scores = {label.label: label.score for label in result.clip_score}
    return [scores[name] for name in model.card.labels]


def plain_scores(clip: dict[str, np.ndarray], model: Model, **options: bool) -> np.ndarray:
    """The paper's whole-video test by the training form: all frames at once, and no others; under 64 looped."""
    return softmax(np.sum([steps.mean(axis=0) for steps in plain_outputs(clip, model, **options).values()], axis=0))


@pytest.mark.slow
def test_scores_equal_those_of_one_plain_pass(folder: Path, model: Model) -> None:
    """For every remainder by 8, and for looped videos; whatever the container says of the length."""
    names = [f"{frames}.mp4" for frames in (2, 40, *range(65, 72))]
    names += ["75.mkv", "89.ts", "74.webm", "77.h264"]  # .h264: no length at all
    codecs = {"webm": "libvpx-vp9", "h264": "libx264"}
    paths = [
        write_video(
            folder / name, num_frames=int(name.split(".")[0]), seed=index, codec=codecs.get(name.split(".")[1], "mpeg4")
        )
        for index, name in enumerate(names)
    ]
    for path, result in zip(paths, classify_many(paths, model), strict=True):
        assert result.num_frames == int(path.stem), path
        assert "completed" not in result.flags
        expected = plain_scores(cropped_clip(path), model)
        np.testing.assert_allclose(scores_of(result, model), expected, atol=LOGITS_TOLERANCE, err_msg=path.name)


@pytest.mark.slow
def test_the_mirror_image_of_an_odd_number_of_frames(folder: Path, model: Model) -> None:
    path = write_video(folder / "odd.mp4", num_frames=73, size=(96, 64), seed=8)
    result = classify(path, model, flip=True)
    expected = plain_scores(cropped_clip(path), model, flip=True)
    np.testing.assert_allclose(scores_of(result, model), expected, atol=LOGITS_TOLERANCE)


def test_a_variable_frame_rate(folder: Path, model: Model) -> None:
    """What counts is the number of frames on the grid: 2.9 s of 25 per second, from 40 at odd times."""
    times = [index * 0.07 + 0.013 * (index % 3) for index in range(41)]
    path = write_video(folder / "vfr.mkv", num_frames=41, pts_seconds=times, seed=6)
    rgb = model.only(("rgb",))
    result, clip = classify(path, rgb), cropped_clip(path)
    assert result.num_frames == len(clip["rgb"]) > 64
    np.testing.assert_allclose(scores_of(result, model), plain_scores(clip, rgb), atol=LOGITS_TOLERANCE)


@pytest.mark.parametrize(
    ("times", "frames"),
    [((1.0, 3.8), (25, 95)), ((1.01, 1.9), (26, 48)), ((3.0, 99.0), (75, 100)), ((3.2, None), (80, 100))],
)
def test_a_part_is_labelled_as_a_file_of_its_frames(
    folder: Path, model: Model, times: tuple[float, float | None], frames: tuple[int, int]
) -> None:
    """All but the first are looped. Times count from the start of the file."""
    (start, end), (first, stop), pictures = times, frames, moving_texture(100, seed=12)
    whole = write_video(folder / "whole.mkv", frames=pictures, codec="ffv1")
    cut = write_video(folder / f"cut-{first}.mkv", frames=pictures[first:stop], codec="ffv1")
    part, alone = classify(whole, model, start=start, end=end), classify(cut, model)
    assert (part.part, alone.part) == (times, None)
    for name in ("num_frames", "flags", "streams", "duration_seconds"):
        assert getattr(part, name) == pytest.approx(getattr(alone, name)), name
    np.testing.assert_allclose(scores_of(part, model), scores_of(alone, model), rtol=1e-5)
    for found, expected in ((part.segments, alone.segments), (part.timeline, alone.timeline)):
        shifted = [(first / 25 + each.start, first / 25 + each.end) for each in expected]
        np.testing.assert_allclose([(each.start, each.end) for each in found], shifted)
    assert VideoResult.from_json(part.to_json()).to_json() == part.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("length", [330, 331, 332, 333])
def test_a_part_of_any_length_has_its_own_paddings(folder: Path, model: Model, length: int) -> None:
    """Longer than what is kept in memory, where the promised length decides how it is padded."""
    pictures, rgb = moving_texture(360, (64, 64), seed=13), model.only(("rgb",))
    whole = write_video(folder / "long.mkv", frames=pictures, codec="ffv1")
    cut = write_video(folder / f"cut-{length}.mkv", frames=pictures[10 : 10 + length], codec="ffv1")
    part, alone = classify(whole, rgb, start=0.4, end=0.4 + length / 25), classify(cut, rgb)
    assert (part.num_frames, part.flags) == (length, ())
    np.testing.assert_allclose(scores_of(part, model), scores_of(alone, model), rtol=1e-5)


def test_a_part_in_which_nothing_is_shown_is_an_error_of_that_video(folder: Path, model: Model) -> None:
    short = write_video(folder / "short.mp4", num_frames=50, seed=1)
    for start, end in ((2.0, None), (60.0, 61.0), (1.01, 1.02)):
        with pytest.raises(VideoError) as caught:
            classify(short, model, start=start, end=end)
        assert caught.value.code == "outside"
    longer = write_video(folder / "longer.mp4", num_frames=75, seed=1)
    found = list(classify_many([short, longer], model, start=2.0))
    assert [(each.status, each.error_code, each.part) for each in found] == [
        ("error", "outside", (2.0, None)),
        ("ok", None, (2.0, None)),
    ]


def with_length(path: Path, frames: int) -> Path:
    """An AVI whose header promises so many frames."""
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 32  # dwLength of the stream's header
    assert content[at - 32 : at - 28] == b"vids"
    content[at : at + 4] = frames.to_bytes(4, "little")
    path.write_bytes(content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("promised", [69, 74, 200])
def test_a_header_that_lies_changes_nothing_for_a_short_video(folder: Path, model: Model, promised: int) -> None:
    path = write_video(folder / f"lies-{promised}.avi", num_frames=71, seed=3)
    rgb = model.only(("rgb",))
    with_length(path, promised)
    with Decoders() as decoders, decoders.open(path, max_frames=0) as opened:
        assert opened.expected_num_frames == promised
    result = classify(path, rgb)
    assert (result.num_frames, "completed" in result.flags) == (71, False)
    np.testing.assert_allclose(scores_of(result, model), plain_scores(cropped_clip(path), rgb), atol=LOGITS_TOLERANCE)


@pytest.mark.slow
def test_a_long_video_whose_header_lies_is_completed_and_flagged(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vadis.inference.predict.SHORT_FRAMES", 64)
    rgb = model.only(("rgb",))
    right = write_video(folder / "right.avi", num_frames=72, seed=3)
    lying = with_length(write_video(folder / "lying.avi", num_frames=72, seed=3), 75)
    flags = [result.flags for result in classify_many([right, lying], rgb)]
    assert ["completed" in each for each in flags] == [False, True]
    frames = cropped_clip(lying)["rgb"][np.minimum(np.arange(75), 71)]
    steps = plain_outputs({"rgb": frames}, rgb)["rgb"][:8]  # the ninth would begin where the video has ended
    expected = softmax(steps.mean(axis=0))
    np.testing.assert_allclose(scores_of(classify(lying, rgb), model), expected, atol=LOGITS_TOLERANCE)


@pytest.mark.slow
def test_a_model_may_be_given_by_its_name_or_path(folder: Path, model: Model, model_path: Path) -> None:
    path = write_video(folder / "by name.mp4", num_frames=8, size=(96, 64), seed=1)
    expected = classify(path, model)
    for named in (model_path, str(model_path)):
        assert classify(path, named) == expected
        assert list(classify_many([path], named)) == [expected]


@pytest.mark.parametrize("wrong", ["i3d-kinetics40", None, 400])
def test_what_is_no_model_is_wrong_use(folder: Path, wrong: object) -> None:
    for label in (classify, lambda path, model: list(classify_many([path], model))):
        with pytest.raises(UsageError):
            label(folder / "gone.mp4", wrong)


@pytest.mark.slow
def test_the_record_of_a_video(folder: Path, model: Model) -> None:
    path = write_video(folder / "record.mp4", num_frames=150, size=(96, 64), seed=1)
    result = classify(path, model, top_k=2)
    assert isinstance(result, VideoResult)
    assert (result.status, result.num_frames, result.frames_decoded, result.flags) == ("ok", 150, 150, ())
    assert (result.model, result.streams, result.source_size) == ("tiny", ("rgb", "flow"), (96, 64))
    assert result.model_sha256 == model.sha256
    assert result.source_fps == Fraction(25)
    assert result.sliding == {"mode": "whole", "segment_seconds": 2.56}
    assert [(segment.start, segment.end) for segment in result.segments] == [(0, 2.56), (2.56, 5.12), (5.12, 6.0)]
    assert len(result.labels) == 2
    assert sum(label.seconds or 0 for label in classify(path, model).labels) == pytest.approx(6.0)


@pytest.mark.parametrize("streams", [("rgb",), ("flow",)])
def test_one_stream_alone(folder: Path, model: Model, streams: tuple[str, ...]) -> None:
    path = write_video(folder / "one-stream.mp4", num_frames=64, size=(96, 64), seed=2)
    assert classify(path, model.only(streams)).streams == streams


def log_scores(result: VideoResult, model: Model) -> np.ndarray:
    """The video's logits, up to a constant."""
    scores = {label.label: label.score for label in result.clip_score}
    values = np.log([scores[name] for name in model.card.labels])
    return values - values.mean()


@pytest.mark.slow
def test_the_sum_of_the_streams_logits_decides(folder: Path, model: Model) -> None:
    path = write_video(folder / "fusion.mp4", num_frames=64, size=(96, 64), seed=3)
    streams = [("rgb",), ("flow",), ("rgb", "flow")]
    rgb, flow, both = (log_scores(classify(path, model.only(s)), model) for s in streams)
    np.testing.assert_allclose(rgb + flow, both, atol=1e-3)


def test_one_frame_is_labelled_by_rgb_alone(folder: Path, model: Model) -> None:
    path = write_video(folder / "frame.mp4", num_frames=1, size=(96, 64), seed=4)
    result = classify(path, model)
    assert (result.streams, result.flags) == (("rgb",), ("looped", "no_flow"))
    with pytest.raises(VideoError) as caught:
        classify(path, model.only(("flow",)))
    assert caught.value.code == "too_short"


def test_a_short_video_has_its_predictions_folded_back_into_it(folder: Path, model: Model) -> None:
    path = write_video(folder / "short.mp4", num_frames=30, size=(96, 64), seed=5)
    result = classify(path, model, segment=0.32)
    assert result.segments[-1].end == pytest.approx(1.2)
    assert len(result.segments) == 4
    assert "looped" in result.flags


@pytest.mark.slow
def test_separate_windows(folder: Path, model: Model) -> None:
    path = write_video(folder / "windows.mp4", num_frames=100, size=(96, 64), seed=6)
    result = classify(path, model.only(("rgb",)), window=32, stride=16)
    assert result.sliding == {"mode": "windows", "window": 32, "stride": 16, "segment_seconds": 2.56}
    with open_video(path) as video:
        frames = centre_crop(np.stack([frame.pixels for frame in video]), "rgb")
    logits = []
    for start in (0, 16, 32, 48, 64, 68):  # the last one moved back to end at frame 100
        with torch.inference_mode():
            logits.append(model.networks["rgb"](network_input(frames[start : start + 32], "rgb")).mean(dim=2)[0])
    scores = {label.label: label.score for label in result.clip_score}
    expected = softmax(torch.stack(logits).mean(dim=0).numpy())
    np.testing.assert_allclose([scores[name] for name in model.card.labels], expected, atol=LOGITS_TOLERANCE)


@pytest.mark.slow
def test_flip_averages_with_the_mirror_image(folder: Path, model: Model) -> None:
    frames = moving_texture(64, (96, 64), seed=7)  # (T, H, W, 3)
    paths = [
        write_video(folder / f"{name}.mkv", size=(96, 64), frames=pixels, codec="ffv1")  # lossless
        for name, pixels in (("as-is", frames), ("mirrored", frames[:, :, ::-1]))
    ]
    rgb = model.only(("rgb",))
    both = [log_scores(classify(path, rgb, flip=True), model) for path in paths]
    alone = [log_scores(classify(path, rgb), model) for path in paths]
    np.testing.assert_allclose(both[0], both[1], atol=0.02)  # 0.02: chroma sites and the scaler are not symmetric
    assert np.abs(alone[0] - alone[1]).max() > 0.1


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"segment": 0.2}, "0.32"),
        ({"segment": 0}, "0.32"),
        ({"segment": float("nan")}, "0.32"),
        ({"window": 8}, "9"),
        ({"stride": 4}, "stride"),
        ({"window": 16, "stride": 0}, "stride"),
        ({"top_k": 0}, "top_k"),
        ({"start": 2.0, "end": 1.5}, "1.5"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(model: Model, options: dict[str, float], fact: str) -> None:
    with pytest.raises(UsageError, match=containing(fact)):
        classify("there is no such file", model, **options)


def test_a_batch_size_that_cannot_be(model: Model) -> None:
    with pytest.raises(UsageError, match=containing("batch_size", "-1")):
        ClassifyOptions(model, Sliding(window=16), batch_size=-1)


@pytest.mark.slow
def test_one_bad_input_never_stops_the_others(folder: Path, model: Model) -> None:
    good = write_video(folder / "good.mp4", num_frames=20, size=(96, 64), seed=8)
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    text = folder / "text.mp4"
    text.write_text("not a video at all\n" * 100)
    paths = [empty, good, folder / "missing.mp4", text, good]
    results = list(classify_many(paths, model))
    assert [result.path for result in results] == [str(path) for path in paths]
    assert [result.status for result in results] == ["error", "ok", "error", "error", "ok"]
    assert [result.error_code for result in results] == ["empty_file", None, "not_found", "not_a_video", None]
    assert results[1] == results[4]


def test_progress_tells_the_stage_and_counts_every_frame(folder: Path, model: Model) -> None:
    path = write_video(folder / "progress.mp4", num_frames=100, size=(96, 64), seed=9)
    seen: list[Progress] = []
    classify(path, model, progress=seen.append)
    assert {event.stage for event in seen} == {"decoding", "flow", "network"}
    done = [event.frames_done for event in seen]
    assert done == sorted(done)
    assert (seen[0].frames_done, seen[-1].frames_done, seen[-1].frames_total) == (0, 100, 100)


def test_logits_that_are_not_numbers_become_an_error_record(folder: Path, model_path: Path) -> None:
    path = write_video(folder / "nan.mp4", num_frames=20, size=(96, 64), seed=10)
    broken = load_model_file(model_path)
    with torch.no_grad():
        broken.networks["rgb"].get_parameter("Logits.Conv3d_0c_1x1.conv.bias").fill_(float("nan"))
    (result,) = classify_many([path], broken)
    assert (result.status, result.error_code) == ("error", "not_finite")


@pytest.mark.slow
def test_labelling_never_imports_opencv(folder: Path, model_path: Path) -> None:
    """The desktop wheel of OpenCV needs libGL, which servers lack; here any import of cv2 fails."""
    path = write_video(folder / "no-cv2.mp4", num_frames=20, size=(96, 64), seed=11)
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "import vadis\n"
        f"print(vadis.classify({str(path)!r}, vadis.load_model({str(model_path)!r})).status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


@pytest.mark.slow
def test_a_model_with_windows_of_its_own_is_shown_those(folder: Path, model: Model) -> None:
    path = write_video(folder / "own-windows.mp4", num_frames=70, size=(96, 64), seed=5)
    own = replace(model, card=replace(model.card, test_window=32, threshold=0.5))
    result = classify(path, own)
    assert result.sliding == {"mode": "windows", "window": 32, "stride": 32, "segment_seconds": 1.28}
    plain = classify(path, model, segment=1.28, window=32)
    assert [segment.start for segment in result.segments] == [0, 1.28, 2.56]
    assert result.segments == plain.segments
    named = (piece for piece in result.timeline if piece.label != NO_CLEAR_LABEL)
    assert all(piece.score >= 0.5 for piece in named)


def test_a_model_that_tells_left_from_right_takes_no_mirror_images(folder: Path, model: Model) -> None:
    path = write_video(folder / "one-way.mp4", num_frames=10, size=(96, 64))
    own = replace(model, card=replace(model.card, provenance={"mirror": False}))
    with pytest.raises(UsageError, match=containing(own.card.name)):
        classify(path, own, flip=True)


def test_segments_count_from_the_start_of_the_file_as_players_do(folder: Path, model: Model) -> None:
    times = [3 + i / 25 for i in range(80)]
    path = write_video(folder / "late.mkv", num_frames=80, size=(96, 64), pts_seconds=times, audio=True)
    result = classify(path, model.only(("rgb",)))
    assert [segment.start for segment in result.segments] == pytest.approx([3, 5.56], abs=0.05)
    assert result.segments[-1].end == pytest.approx(6.2, abs=0.05)
    assert result.duration_seconds == pytest.approx(3.2, abs=0.01)


def test_a_lone_frame_lasts_as_long_as_the_record_says(folder: Path, model: Model) -> None:
    path = write_video(folder / "minute.mp4", num_frames=1, size=(96, 64), fps=Fraction(1, 60), codec="libx264")
    result = classify(path, model)
    assert result.duration_seconds == 60
    assert (result.segments[0].start, result.segments[-1].end) == (0, 60)
    (cue,) = "".join(srt([result])).strip().split("\n\n")
    assert "00:00:00,000 --> 00:01:00,000" in cue


def test_bf16_stands_in_the_record_and_moves_scores_a_little(model, folder):
    path = write_video(folder / "rounded.mp4", num_frames=20, seed=5)
    exact = classify(path, model)
    with emulated_bfloat16():
        rounded = classify(path, replace(model, precision="bf16", folded={}))
    assert (exact.precision, rounded.precision) == ("fp32", "bf16")
    difference = np.abs(np.subtract(scores_of(exact, model), scores_of(rounded, model))).max()
    assert 0 < difference < 0.02
