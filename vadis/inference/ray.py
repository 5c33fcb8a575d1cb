"""Label videos on a Ray cluster, by the code that labels them on one machine. Ray is an extra: ``vadis[ray]``.

    paths ─ Ray Data ─→ actors, one per GPU or processor: networks, scores (``_Labeller``) ─→ records, to the caller
                             ↑ clips, two of them on their way at most
                        tasks on any processor: decode, flow, crop (``_prepared``)

A task stops while two clips wait: so memory is bounded. An actor that is lost is started again by the engine with the
videos whose records have not arrived; of a task that is lost its actor begins another.
"""

import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from math import ceil
from typing import Any

import torch
from torch import nn

from vadis.errors import VadisError, VideoError
from vadis.inference.classify import ClassifyOptions, record_of
from vadis.inference.prefetch import LocalVideo, map_videos
from vadis.models import MODELS, Model, ModelCard, check_precision
from vadis.parsing import parse_json
from vadis.preprocessing import Clip
from vadis.results import Part, VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.isolated.process import error_from_json, error_to_json
from vadis.video.metadata import VideoFacts
from vadis.video.sources import Stamp

_log = logging.getLogger(__name__)

LOCAL, FOUND = "local", "auto"
"""As addresses: a Ray of this machine's own, for this run; the cluster that Ray finds (``RAY_ADDRESS``)."""

CLIPS_WAITING = 2  # of each video, in the cluster's memory; 18 MB each with both streams
VIDEOS_AT_ONCE = 4  # that an actor is given, while as many wait for it: what is done again when one is lost
MAX_BLOCKS = 20_000  # of one run; where there are more videos than that allows, an actor is given more at once
NETWORK_CPUS, PREPARING_CPUS = 0.501, 0.2  # asked for, not used. So what was on two machines fits on one of them, and
# no machine is ever so full of networks, which stay, that none of their tasks has room beside them
LOOK_SECONDS, LOST_SECONDS = 5, 600  # between looks at the cluster; without a record, while it has too few places
_NO_CLUSTER_HINT = 'start one by `ray start --head`, or give `address="local"`'
_GO_ON_HINT = "the same command goes on where it stopped"


def classify_on_ray(
    paths: Sequence[str],
    options: ClassifyOptions,
    *,
    address: str = FOUND,
    on_gpus: bool = True,
    share_bytes: int | None = None,
) -> Generator[VideoResult, None, None]:
    """Yield one record per input, as they are ready; see ``classify_many``.

    Args:
        paths: the same on every machine; relative ones begin in the current folder.
        options: with a model on the CPU, which goes to the actors by itself.
        address: of a Ray cluster, ``FOUND`` or ``LOCAL``.
        on_gpus: the networks get a GPU each, where the cluster has any.
        share_bytes: of the scratch space for each URL that is fetched; None: none is.

    Raise VadisError if Ray is not installed, there is no cluster at the address, or a machine of it cannot go on.
    """
    if not paths:
        return
    with _connected(address) as ray:
        actors, jobs, cores = _pool(ray.cluster_resources(), on_gpus)
        is_gpu = cores == 0
        where = "GPUs" if is_gpu else "processors"
        _log.info("Ray: %d networks on %s, %d videos prepared ahead for each", actors, where, jobs)
        bare = replace(options.model, folded={}, batch_limits={})  # what is made of it for a processor does not travel
        options = replace(options, model=bare, progress=None)
        at_once = max(VIDEOS_AT_ONCE, ceil(len(paths) / MAX_BLOCKS))
        num_blocks = ceil(len(paths) / at_once)
        items = [{"path": os.fsencode(path)} for path in paths]
        records = ray.data.from_items(items, override_num_blocks=num_blocks).map_batches(
            _Labeller,
            fn_constructor_args=(options, jobs, share_bytes, os.getcwd(), cores),  # noqa: PTH109
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(actors, num_blocks)),
            **({"num_gpus": 1} if is_gpu else {"num_cpus": NETWORK_CPUS}),
        )
        try:
            for row in _as_they_come(records.iter_rows, partial(_has_too_few, ray, actors, is_gpu)):
                yield VideoResult.from_json(parse_json(row["record"]))
        except ray.exceptions.RayError as error:
            raise _explained(error) from error


def _pool(resources: dict[str, float], on_gpus: bool) -> tuple[int, int, int]:
    """Return how many actors, how many videos each reads at once, and on how many processors it computes; 0: a GPU."""
    gpus, cpus = int(resources.get("GPU", 0)) if on_gpus else 0, int(resources.get("CPU", 1))
    if gpus:
        return gpus, max(2, cpus // gpus), 0
    actors = max(1, cpus // 2)  # whose networks share their processors with the tasks, as on a machine by itself
    each = ceil(cpus / actors)
    return actors, 2 * each, each


def _has_too_few(ray: Any, actors: int, is_gpu: bool) -> bool:
    """Return whether what is left of the cluster has no place for some of the networks that it had places for."""
    name, each = ("GPU", 1.0) if is_gpu else ("CPU", NETWORK_CPUS)
    return bool(ray.cluster_resources().get(name, 0) < actors * each)


def _as_they_come(
    rows: Callable[[], Iterator[dict[str, Any]]],
    has_too_few: Callable[[], bool],
    look_seconds: float = LOOK_SECONDS,
    lost_seconds: float = LOST_SECONDS,
) -> Iterator[dict[str, Any]]:
    """Yield the rows as they come, and raise what ends them, or a VadisError after ``lost_seconds`` without a machine.

    An actor that Ray cannot start again keeps its videos, and Ray would wait for ever.
    """
    arrived: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()

    def draw() -> None:
        try:
            for row in rows():
                arrived.put(row)
            arrived.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again where the rows are wanted)
            arrived.put(error)

    threading.Thread(target=draw, name="rows", daemon=True).start()
    silent = 0.0
    while True:
        try:
            row = arrived.get(timeout=look_seconds)
        except queue.Empty:
            silent = silent + look_seconds if has_too_few() else 0.0
            if silent >= lost_seconds:
                raise VadisError("a machine of the Ray cluster is gone, and none came for it", _GO_ON_HINT) from None
            continue
        if row is None:
            return
        if isinstance(row, BaseException):
            raise row
        silent = 0.0
        yield row


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Yield Ray, connected to a cluster, and as quiet as it can be made."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise VadisError("Ray is not installed", "pip install 'vadis[ray]'") from error
    _refuse_silence(address)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == LOCAL else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=False, **own)
    except Exception as error:  # Ray raises bare ones where a node of its own does not start
        if address == LOCAL:
            hint = "its logs tell why (/tmp/ray/session_latest/logs); leave `address` out to do without Ray"
            raise VadisError(f"Ray cannot be started here: {_last_line(error)}", hint) from error
        raise VadisError(f"there is no Ray cluster at {address}", _NO_CLUSTER_HINT) from error
    except SystemExit:  # raised by Ray's own handler of SIGTERM
        signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_silence(address: str) -> None:
    """Raise VadisError where nobody listens at HOST:PORT: Ray itself would go on asking for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise VadisError(f"there is no Ray cluster at {address}", _NO_CLUSTER_HINT) from error


def _explained(error: BaseException) -> VadisError:
    """Return what an error from the cluster says to a user: the VadisError behind it, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, VadisError):
            return VadisError(cause.message, cause.hint)
        cause = getattr(cause, "cause", None) or cause.__cause__
    return VadisError(f"the Ray cluster cannot go on: {_last_line(error)}", _GO_ON_HINT)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


class _Labeller:
    """The networks, in an actor: a batch of paths → a batch of records."""

    def __init__(self, options: ClassifyOptions, jobs: int, share_bytes: int | None, folder: str, cores: int) -> None:
        device = torch.device("cpu" if cores else "cuda")
        if cores:
            torch.set_num_threads(cores)  # Ray lets it have one
        networks = {name: network.to(device) for name, network in options.model.networks.items()}
        model = replace(options.model, networks=networks, device=device, may_leave_device=False)
        # Where the command was given it was no slower.
        check_precision(model.precision, model.card.architecture, device)
        begin = partial(_VideoElsewhere, model=model, folder=folder, share_bytes=share_bytes, part=options.part)
        label = replace(options, model=model).label
        self._part = options.part
        self._outcomes = partial(map_videos, begin=begin, work=label, model=model, jobs=jobs)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """``path`` in bytes → ``record``, a line of JSON."""
        outcomes = self._outcomes([os.fsdecode(path) for path in batch["path"]])
        records = (record_of(video.path, video.stamp, outcome, self._part) for _, video, outcome in outcomes)
        return {"record": [record.to_json_line() for record in records]}


class _VideoElsewhere:
    """A ``PendingVideo`` that a task anywhere in the cluster prepares; if it is lost, ``map_videos`` begins another."""

    facts: VideoFacts

    def __init__(self, path: str, model: Model, folder: str, share_bytes: int | None, part: Part | None) -> None:
        import ray

        self.path, self.stamp, self.expected_num_frames = path, Stamp(None, None), None
        self.streams: tuple[str, ...] = ()
        self._wanted, self._ray = model.card.streams, ray
        task = ray.remote(_prepared).options(
            num_cpus=PREPARING_CPUS,
            max_retries=0,
            scheduling_strategy="SPREAD",
            num_returns="streaming",
            _generator_backpressure_num_objects=CLIPS_WAITING,
        )
        self._messages = task.remote(os.path.join(folder, path), model.card, share_bytes, part)  # noqa: PTH118

    def clips(self, report: Callable[[str], None]) -> Iterator[Clip]:
        """See ``LocalVideo.clips``; the stages of a task are not reported."""
        self.stamp = self._next()
        self.expected_num_frames, self.facts = self._next()
        first = self._next()
        self.streams = tuple(stream for stream in self._wanted if stream in first)

        def clips() -> Iterator[Clip]:
            item = first
            while not isinstance(item, VideoFacts):
                yield item
                item = self._next()
            self.facts = item

        return clips()

    def close(self) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.cancel(self._messages)

    def _next(self) -> Any:
        try:
            item = self._ray.get(next(self._messages))
        except self._ray.exceptions.RayTaskError as error:
            raise _explained(error) from error
        except (self._ray.exceptions.RayError, StopIteration) as error:
            raise VideoError("io_error", "the worker that prepared this video was lost, again and again") from error
        if isinstance(item, dict) and "error" in item:
            raise error_from_json(item["error"])
        return item


def _prepared(path: str, card: ModelCard, share_bytes: int | None, part: Part | None) -> Iterator[Any]:
    """In a task: yield a video's stamp, (length, facts), clips and final facts; or its error, after the stamp."""
    names = MODELS[card.architecture].networks(card.streams)
    model = Model(card, {name: nn.Identity() for name in names}, torch.device("cpu"))
    with closing(LocalVideo(path, model, _decoders(share_bytes), listed=True, part=part)) as video:
        yield video.stamp
        try:
            clips = video.clips()
            yield video.expected_num_frames, video.facts
            for clip in clips:  # noqa: UP028 (Ray sends values into its generators, which `chain` does not take)
                yield clip
            yield video.facts
        except VideoError as error:
            yield {"error": error_to_json(error)}


@cache
def _decoders(share_bytes: int | None) -> Decoders:
    if share_bytes is None:
        return Decoders()
    from vadis.video.remote import FetchingDecoders

    return FetchingDecoders(share_bytes, places=1)
