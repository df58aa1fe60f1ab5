"""Whether an exported file answers as the network that it was made of, on real pictures."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from flaxnets.errors import ArchitectureError, ConfigError, DataError
from flaxnets.tools.classifier import Classifier, require_finite
from flaxnets.tools.exported import Exported
from flaxnets.tools.trained import Trained

if TYPE_CHECKING:
    from flaxnets.data.sources import Source

MOST_PICTURES = 64
BATCH = 16
# Of the largest logit, and of the largest probability. A sum of float32 in another order gives some 1e-6 of it; a
# layer that is exported wrongly, far more.
TOLERANCE = 1e-4
# The same for files of fewer bits: whole numbers were seen to differ by .02 to .1 in trained networks, by up to .25 in
# random ones, and a broken operator by 1.
ROUNDED = 0.5


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far the answers of a file are from its network's.

    Attributes:
      logit: the largest difference of a logit, in shares of the largest logit; None for a file of probabilities.
      probability: the largest difference of a probability.
      same_class, count: pictures of which both name the same class as the likeliest, and all.
    """

    logit: float | None
    probability: float
    same_class: int
    count: int

    def __str__(self) -> str:
        logits = "" if self.logit is None else f"logits by {self.logit:.1e} of the largest, "
        return f"{logits}probabilities by {self.probability:.1e}, same class for {self.same_class} of {self.count}"


def on_cpu() -> AbstractContextManager:
    """Meanwhile JAX computes on the CPU: accelerators round float32 products to fewer bits, which would hide mistakes.

    Raises:
      ConfigError: the environment variable JAX_PLATFORMS leaves the CPU out.
    """
    import jax

    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError as error:
        raise ConfigError(
            f"Exported files are compared with their model on the CPU, which JAX_PLATFORMS leaves out; set it to "
            f"{jax.default_backend()},cpu, or unset it."
        ) from error


def answers(network: Trained, pixels: np.ndarray) -> np.ndarray:
    """A network's logits [b, classes] of pixels uint8 [b, h, w, c].

    Raises:
      WeightsError: a logit is not finite.
    """
    import jax
    from flax import nnx

    from flaxnets.training.step import normalise

    graph, state = nnx.split(network.model)
    logits = jax.jit(lambda state, pixels: nnx.merge(graph, state)(normalise(pixels, network.mean, network.std)))
    found = np.concatenate([logits(state, pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])
    require_finite(found, "logits", network.name)
    return found


def compare(file: Exported, pixels: np.ndarray, expected: np.ndarray) -> Difference:
    """What a file makes of pixels uint8 [b, h, w, c] beside a network's logits [b, classes].

    Raises:
      ArchitectureError: a file differs by more than the rounding of its precision does.
    """
    found = np.concatenate([file.logits(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])
    of_logits = file.description.output == "logits"
    wanted = softmax(expected)
    difference = Difference(
        logit=float(np.abs(found - expected).max() / np.abs(expected).max()) if of_logits else None,
        probability=float(np.abs(softmax(found) - wanted).max()),
        same_class=int((found.argmax(1) == expected.argmax(1)).sum()),
        count=len(pixels),
    )
    # Written so that what is not a number is refused, too.
    close = difference.probability <= TOLERANCE * wanted.max() and (difference.logit or 0.0) <= TOLERANCE
    precision = file.description.precision
    worst = difference.probability if difference.logit is None else difference.logit
    if precision != "float32" and not worst <= ROUNDED:  # as above
        raise ArchitectureError(
            f"The file of {precision} does not answer as {file.arch} does: {difference}, where {ROUNDED} is allowed. "
            "Nothing was written; choose another --precision."
        )
    if precision == "float32" and not close:
        raise ArchitectureError(
            f"The exported file does not answer as {file.arch} does: {difference}, where {TOLERANCE:.0e} is allowed. "
            "Nothing was written; report it with the command, or choose another format."
        )
    return difference


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [b, classes] of logits [b, classes], which may be -inf; computed in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def real_pictures(network: Classifier) -> tuple[np.ndarray, str]:
    """Pixels uint8 [b, image_size, image_size, channels] as the network sees them, and what they are.

    They are test pictures of the network's own data; where those are not there, parts of scikit-learn's two
    photographs, which every installation has.
    """
    from flaxnets.data.sources import open_sources

    if network.data:
        try:
            source = open_sources(network.data)[1]
            pixels = list(pictures_of(source, network, MOST_PICTURES))
            if pixels:
                return np.stack(pixels), f"{len(pixels)} of its test pictures"
        except DataError:
            pass  # other pictures will do
    photographs = _photographs(network)
    return photographs, f"{len(photographs)} parts of two photographs"


def pictures_of(source: "Source", network: Classifier, count: int) -> Iterator[np.ndarray]:
    """Pixels uint8 [image_size, image_size, channels] of up to `count` examples, spread evenly; broken ones left out.

    Args:
      source: pictures, made grey or coloured as the network wants them.
      network: which sees them in its view.
      count: the most.
    """
    from flaxnets.data.loading import load

    own, fixed = dataclasses.replace(source, channels=network.channels), np.random.default_rng(0)
    for index in _spread(len(source.examples), count):
        try:
            yield load(own, index, network.transforms, fixed)[0]
        except DataError:
            continue


def _spread(length: int, count: int) -> Sequence[int]:
    return np.unique(np.linspace(0, length - 1, min(length, count)).astype(int)).tolist()


def _photographs(network: Classifier) -> np.ndarray:
    from sklearn.datasets import load_sample_images

    from flaxnets.data.loading import transformed

    photographs = load_sample_images().images
    views, fixed = network.views(crops=5, flip=True), np.random.default_rng(0)
    return np.stack([transformed(each, network.channels, view, fixed) for each in photographs for view in views])
