"""A network at work on pictures: decoded by threads, computed on all devices, in constant memory."""

import abc
import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx

from flaxnets.data.loading import default_workers
from flaxnets.data.pixels import BrokenImageError
from flaxnets.plugin import ImageClassifier
from flaxnets.tools.classifier import Classifier, require_finite
from flaxnets.tools.exported import Exported
from flaxnets.tools.trained import Trained
from flaxnets.training import mesh, programs, step

Item = TypeVar("Item")
Outputs = dict[str, np.ndarray]
Load = Callable[[Item], tuple[np.ndarray, int | None]]


def logits(model: ImageClassifier, images: jax.Array) -> dict[str, jax.Array]:
    """What most tools want of a network: `logits` [b, classes]."""
    return {"logits": model(images)}


class Seen(NamedTuple, Generic[Item]):
    """What came of one picture.

    Attributes:
      item: what was asked for.
      pixels: as the network saw it, uint8 [h, w, c]; None where the picture is broken.
      label: number of its class, where that is known.
      outputs: the network's, a row each; none where the picture is broken.
      problem: why it is broken, or None.
    """

    item: Item
    pixels: np.ndarray | None
    label: int | None
    outputs: Outputs
    problem: str | None


class Stream(abc.ABC):
    """Computes on pictures in batches of one size, as many as come.

    Args:
      name: of the network, for messages.
      batch_size: pictures at a time.
      shape: of one, [image_size, image_size, channels].
    """

    def __init__(self, name: str, batch_size: int, shape: tuple[int, ...]):
        self._name = name
        self.batch_size = batch_size
        self._shape = shape

    @abc.abstractmethod
    def start(self, images: np.ndarray) -> Mapping[str, jax.Array | np.ndarray]:
        """Begin to compute on uint8 images [batch_size, h, w, c]: a row of each result for each of them."""

    def stream(self, items: Iterable[Item], load: Load[Item]) -> Iterator[Seen[Item]]:
        """What the network makes of each item, in order; holds a few batches in memory, however many there are.

        Args:
          items: names of pictures, in whatever form `load` takes.
          load: an item's pixels, uint8 [image_size, image_size, channels], and its label or None; called by several
            threads. Where it raises BrokenImageError or OSError, the item's result says so; anything else ends the
            stream.

        Raises:
          WeightsError: a result is not finite.
        """
        computing: collections.deque[tuple[list, Mapping[str, Any]]] = collections.deque()
        for batch in _batches(_loaded(items, load, 2 * self.batch_size), self.batch_size):
            computing.append((batch, self.start(self._images(batch))))
            if len(computing) == 2:  # the devices compute one batch while another is handed on
                yield from self._finished(*computing.popleft())
        while computing:
            yield from self._finished(*computing.popleft())

    def _images(self, batch: list) -> np.ndarray:
        images = np.zeros((self.batch_size, *self._shape), np.uint8)
        for row, (_, pixels, _, _) in enumerate(batch):
            if pixels is not None:
                images[row] = pixels
        return images

    def _finished(self, batch: list, outputs: Mapping[str, Any]) -> Iterator[Seen]:
        rows = {name: np.asarray(array) for name, array in outputs.items()}
        for row, (item, pixels, label, problem) in enumerate(batch):
            own = {} if problem else {name: array[row] for name, array in rows.items()}
            for name, array in own.items():
                require_finite(array, name, self._name)
            yield Seen(item, pixels, label, own, problem)


class Network(Stream):
    """A network that is compiled at once for batches of one size, or read back from the cache.

    Args:
      trained: the network.
      batch_size: pictures at a time; made a multiple of the devices.
      cache: folder of compiled programs.
      compute: `(model, normalised images [b, h, w, c]) -> {name: array [b, ...]}`.
      settings: whatever shapes `compute` besides, as JSON values; for the cache.
    """

    def __init__(
        self,
        trained: Trained,
        batch_size: int,
        cache: Path,
        compute: Callable[[ImageClassifier, jax.Array], dict[str, jax.Array]] = logits,
        settings: Any = None,
    ):
        batch_size = -(-batch_size // jax.device_count()) * jax.device_count()
        shape = (batch_size, trained.image_size, trained.image_size, trained.channels)
        super().__init__(trained.name, batch_size, shape[1:])
        self._devices = mesh.data_mesh(batch_size)
        graph, streams, arrays = nnx.split(trained.model, nnx.RngState, ...)
        random = nnx.to_pure_dict(streams)

        def run(state: dict, images: jax.Array) -> dict[str, jax.Array]:
            model = nnx.merge(graph, random, state)
            outputs = compute(model, step.normalise(images, trained.mean, trained.std))
            return jax.lax.all_gather(outputs, mesh.AXIS, tiled=True)

        self._state = jax.device_put(nnx.to_pure_dict(arrays), mesh.copied(self._devices))
        self._program = programs.Program(
            mesh.data_parallel(run, self._devices),
            donate_state=False,
            cache=programs.use_compilation_cache(cache),
            code=programs.loaded_files(),
            settings={
                "network": (trained.arch, trained.options, trained.mean, trained.std),
                "compute": (compute.__module__, compute.__qualname__, settings),
            },
        )
        self._program.compile(
            mesh.shapes(self._state, mesh.copied(self._devices)),
            jax.ShapeDtypeStruct(shape, np.uint8, sharding=mesh.split(self._devices)),
        )

    def start(self, images: np.ndarray) -> Mapping[str, jax.Array]:
        """Begin to compute on all devices."""
        return self._program(self._state, jax.device_put(images, mesh.split(self._devices)))


class ExportedNetwork(Stream):
    """An exported file at work, which gives `logits`.

    Args:
      file: the network.
      batch_size: pictures at a time.
      cache: folder of compiled programs.
    """

    def __init__(self, file: Exported, batch_size: int, cache: Path):
        programs.use_compilation_cache(cache)
        super().__init__(file.name, batch_size, file.description.input_shape(batch_size)[1:])
        self._file = file

    def start(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Compute."""
        return {"logits": self._file.logits(images)}


def classifying(classifier: Classifier, batch_size: int, cache: Path) -> Stream:
    """Whatever the classifier is, the `logits` of pictures."""
    if isinstance(classifier, Exported):
        return ExportedNetwork(classifier, batch_size, cache)
    assert isinstance(classifier, Trained)
    return Network(classifier, batch_size, cache)


def _loaded(items: Iterable[Item], load: Load[Item], ahead: int) -> Iterator[tuple]:
    """(item, pixels, label, problem) of each item, in order, while threads are at work on the next ones."""

    def attempt(item: Item) -> tuple[Item, np.ndarray | None, int | None, str | None]:
        try:
            return item, *load(item), None
        except BrokenImageError as error:
            return item, None, None, str(error)
        except OSError as error:
            return item, None, None, error.strerror or str(error)

    waiting: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(default_workers()) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(attempt, item))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(examples: Iterable[tuple], size: int) -> Iterator[list[tuple]]:
    examples = iter(examples)
    while batch := list(itertools.islice(examples, size)):
        yield batch
