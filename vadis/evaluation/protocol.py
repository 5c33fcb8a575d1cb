"""The protocol: what is looked at of each video, and the answers to all of a split.

Of every video the first 250 frames at 25 fps (10 s; the 3D-ConvNet: 240), centre crop. I3D takes them whole, the other
architectures in windows of their own; the predictions over time are averaged, then those of the streams (paper,
sections 2 and 2.5, table 1).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vadis.datasets import Dataset, Example
from vadis.errors import UsageError, VideoError
from vadis.evaluation.answers import Answer, AnswerFile
from vadis.inference import Progress, reporter
from vadis.models import MODELS, Model
from vadis.results import printable
from vadis.scores import averaged
from vadis.sliding import WHOLE_VIDEO, outputs, prepared
from vadis.video.reader import open_video


def answer(
    example: Example, model: Model, *, flip: bool = False, progress: Callable[[Progress], None] | None = None
) -> Answer:
    """What ``model`` says of one example, by the paper's test; a video that cannot be read gives the reason."""
    rate, architecture = model.card.frame_rate, MODELS[model.card.architecture]
    start = round((example.start_seconds or 0) * rate)
    count = architecture.test_frames
    if example.end_seconds is not None:
        count = min(count, max(1, round(example.end_seconds * rate) - start))
    try:
        with open_video(example.path, start_frame=start, listed=True) as video:
            streams, clips = prepared(video, model, reporter(example.path, video, progress), max_frames=count)
            found = [each for _, each in outputs(clips, video, model.only(streams), WHOLE_VIDEO, flip=flip)]
        logits = {name: averaged([each[name] for each in found], architecture.averages) for name in found[0]}
        if not all(np.isfinite(row).all() for row in logits.values()):
            raise VideoError("not_finite", "the network gave a score that is not a number")
    except VideoError as error:
        return Answer(example.path, example.label, {}, f"{error.code}: {error.message}", example.start_seconds)
    return Answer(example.path, example.label, logits, None, example.start_seconds)


def evaluate(
    examples: Sequence[Example],
    model: Model,
    file: AnswerFile,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Answer]:
    """An answer for every example, in order; those that ``file`` holds are not asked for again, new ones go into it.

    Raises:
        UsageError: for examples of classes that the model does not know.
        OSError: where the disk does not take an answer.
    """
    check_classes(examples, model)
    for example in examples:
        known = file.answers.get((printable(example.path), example.start_seconds))
        if known is None:
            known = file.append(answer(example, model, flip=flip, progress=progress))
        yield known


def check_classes(examples: Iterable[Example], model: Model) -> None:
    """Raise UsageError for examples of classes that the model does not know."""
    known = set(model.card.labels)
    unknown = sorted({example.label for example in examples} - known)
    if unknown:
        named = ", ".join(map(printable, unknown[:5]))
        raise UsageError(
            f"the model {model.card.name} has no class for {len(unknown)} classes of the dataset: {named}",
            hint=f"it has {len(known)} classes, such as {', '.join(model.card.labels[:3])}; fine-tune it to these",
        )


def about_part(dataset: Dataset, part: str) -> str | None:
    """What has to be said of figures that are not those of a test split; None where they are."""
    if part == "test":
        return None
    chosen = "" if "test" in dataset.splits else f"{dataset.name} has no test split here: "
    warning = {
        "val": "training may have chosen its learning rate by these videos",
        "train": "a model knows the videos that it learnt from, so this is no test",
    }
    return f"{chosen}tested on {part}; {warning.get(part, 'not the test split')}"


def learnt_from_the_test(model: Model, dataset: Dataset) -> str | None:
    """A warning where ``model`` learnt from another split of ``dataset``: their training and test videos overlap."""
    learnt = model.card.provenance.get("dataset")
    if not isinstance(learnt, dict) or learnt.get("name") != dataset.name or learnt.get("split") == dataset.split:
        return None
    return (
        f"{printable(model.card.name)} learnt from split {learnt.get('split')}, which trains with videos that split "
        f"{dataset.split} tests with: these figures are too good"
    )


def settings_of(model: Model, dataset: str, split: int, flip: bool, part: str = "test") -> dict[str, Any]:
    """What decides the answers of an evaluation, apart from the videos."""
    architecture = MODELS[model.card.architecture]
    return {
        "schema": 1,
        "model": model.card.name,
        "model_sha256": model.sha256,
        "architecture": model.card.architecture,
        "streams": list(model.card.streams),
        "networks": list(architecture.networks(model.card.streams)),
        "averages": architecture.averages,
        "dataset": dataset,
        "split": split,
        "part": part,
        "frames": architecture.test_frames,
        "flip": flip,
        "classes": list(model.card.labels),
    }
