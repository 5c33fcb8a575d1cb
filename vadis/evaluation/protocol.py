"""The protocol: what is looked at of each video, and the answers to all of a split.

Of every video the first 250 frames at 25 fps (10 s; the 3D-ConvNet: 240), centre crop. I3D takes them whole, the other
architectures in windows of their own; the predictions over time are averaged, then those of the streams (paper,
sections 2 and 2.5, table 1).
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import tested_part
from vadis.errors import UsageError, VideoError
from vadis.evaluation.predictions import Answer, AnswerFile, Key, Logits
from vadis.inference.predict import Progress, predict
from vadis.inference.prefetch import LocalVideo, PendingVideo, map_videos
from vadis.inference.scores import averaged
from vadis.models import MODELS, Model
from vadis.results import printable
from vadis.video.isolated.pool import Decoders
from vadis.weights.published import published_name


def answer(
    example: Example, model: Model, *, flip: bool = False, progress: Callable[[Progress], None] | None = None
) -> Answer:
    """What ``model`` says of one example, by the paper's test; a video that cannot be read gives the reason."""
    (found,) = answers([example], model, flip=flip, progress=progress, jobs=1)
    return found


def answers(
    examples: Iterable[Example],
    model: Model,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> Generator[Answer, None, None]:
    """The answer for every example, in order; ``jobs`` as for ``classify_many``."""
    averages = MODELS[model.card.architecture].averages

    def average(video: PendingVideo) -> dict[str, Logits]:
        found = [outputs for _, outputs in predict(video, model, flip=flip, progress=progress)]
        logits = {name: averaged([each[name] for each in found], averages) for name in found[0]}
        if not all(np.isfinite(row).all() for row in logits.values()):
            raise VideoError("not_finite", "the network gave a score that is not a number")
        return logits

    with Decoders() as decoders:
        begin = partial(_begin, model, decoders)
        for example, _, found in map_videos(examples, begin, average, model, jobs=jobs):
            error = f"{found.code}: {found.message}" if isinstance(found, VideoError) else None
            logits = {} if isinstance(found, VideoError) else found
            yield Answer(example.path, example.label, logits, error, example.start_seconds)


def _begin(model: Model, decoders: Decoders, example: Example) -> LocalVideo:
    """The part of an example's video that the test looks at, begun."""
    rate, count = model.card.frame_rate, MODELS[model.card.architecture].test_frames
    start, count = tested_part(example, decoders, rate, count)
    return LocalVideo(example.path, model, decoders, listed=True, start_frame=start, max_frames=count)


def evaluate(
    examples: Sequence[Example],
    model: Model,
    file: AnswerFile,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> Iterator[Answer]:
    """An answer for every example, in order; those that ``file`` holds are not asked for again, new ones go into it.

    A video that failed for a reason of the moment (``FAILURES_OF_A_MOMENT``) is asked again.

    ``jobs`` as for ``classify_many``.

    Raises:
        UsageError: for examples of classes that the model does not know.
        OSError: where the disk does not take an answer.
    """
    check_classes(examples, model)
    missing: dict[Key, Example] = {}
    for example in examples:
        if file.known(example) is None:
            missing.setdefault(file.key(example), example)
    found = answers(tuple(missing.values()), model, flip=flip, progress=progress, jobs=jobs)
    with closing(found):
        for example in examples:
            key = file.key(example)
            yield file.answers[key] if missing.pop(key, None) is None else file.append(next(found))


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
        "schema": 2,  # 1 knew videos by their paths as they were typed
        "model": model.card.name,
        "model_sha256": model.sha256,
        "published": published_name(model),
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
