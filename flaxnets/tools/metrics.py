"""How good predictions are: accuracy, loss, figures a class, confusion and calibration; as numbers and as pictures."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from flaxnets.errors import printable

BINS = 15  # of the calibration error, as in its paper
Average = Literal["probability", "logit"]


@dataclasses.dataclass(frozen=True)
class Metrics:
    """How good the predictions for a data set are.

    Attributes:
      count: number of examples.
      top1, top5: share of the examples whose label is the likeliest class, or among the five likeliest; `top5` is None
        where there are no more than five classes.
      loss: mean cross-entropy, in nats.
      ece: expected calibration error: |accuracy - confidence| within 15 bins of equal width over the confidence,
        weighted by the examples in them (Guo et al. 2017, arXiv:1706.04599, section 2).
      bins: of it, from confidence 0 to 1: `count`, and where that is not 0, mean `confidence` and `accuracy`.
      classes: a dictionary a class: `name`, `precision`, `recall`, `f1`, `count`. What would be 0 / 0 is 0.
      confusion: examples of label i that were taken for class j, [classes][classes].
    """

    count: int
    top1: float
    top5: float | None
    loss: float
    ece: float
    bins: list[dict[str, float]]
    classes: list[dict[str, Any]]
    confusion: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return dataclasses.asdict(self)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Logarithm of softmax, along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def average(logits: Sequence[np.ndarray], how: Average) -> np.ndarray:
    """The log-probabilities [n, classes] of several predictions together.

    Args:
      logits: of each network and view, [n, classes].
      how: the mean of their probabilities, or of their logits (a geometric mean of probabilities).
    """
    if how == "logit":
        return log_probabilities(np.mean(logits, axis=0))
    return np.log(np.maximum(np.mean(np.exp([log_probabilities(each) for each in logits]), axis=0), 1e-38))


def measure(predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Metrics:
    """How good predictions are.

    Args:
      predicted: log-probabilities [n, classes].
      labels: [n].
      class_names: one a class.
    """
    from sklearn import metrics

    every = np.arange(len(class_names))
    best = predicted.argmax(-1)
    confidence, right = np.exp(predicted[np.arange(len(labels)), best]), best == labels
    zero: Any = 0  # of 0 / 0
    by_class: Any = metrics.precision_recall_fscore_support(labels, best, labels=every, zero_division=zero)
    rows = zip(class_names, *(values.tolist() for values in by_class), strict=True)
    top5 = metrics.top_k_accuracy_score(labels, predicted, k=5, labels=every) if len(every) > 5 else None
    bins = _bins(confidence, right)
    return Metrics(
        count=len(labels),
        top1=float(metrics.accuracy_score(labels, best)),
        top5=None if top5 is None else float(top5),
        loss=float(-predicted[np.arange(len(labels)), labels].mean()),
        ece=sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["count"]) / len(labels),
        bins=bins,
        classes=[dict(zip(("name", "precision", "recall", "f1", "count"), row, strict=True)) for row in rows],
        confusion=metrics.confusion_matrix(labels, best, labels=every).tolist(),
    )


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Bin i holds confidences of (i / 15, (i + 1) / 15]."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    members = [place == number for number in range(BINS)]
    return [
        {"count": int(m.sum()), "confidence": float(confidence[m].mean()), "accuracy": float(right[m].mean())}
        if m.any()
        else {"count": 0}
        for m in members
    ]


def draw_reliability(measured: Sequence[tuple[str, Metrics]]) -> bytes:
    """A PNG with a reliability diagram for each: accuracy over confidence, equal where calibration is perfect."""
    figure, panels = _panels(len(measured))
    for axes, (name, each) in zip(panels, measured, strict=True):
        for number, b in enumerate(each.bins):
            if b["count"]:
                axes.bar(number / BINS, b["accuracy"], 1 / BINS, align="edge", color="#3b6ea5", edgecolor="white")
                low, high = sorted((b["accuracy"], b["confidence"]))
                axes.bar(number / BINS, high - low, 1 / BINS, low, align="edge", color="#d1495b55", edgecolor="#d1495b")
        axes.plot((0, 1), (0, 1), color="grey", linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
        axes.set_title(
            f"{printable(PurePath(name).name)}\ncalibration error {each.ece:.1%}", fontsize=10, parse_math=False
        )
    return _png(figure)


def draw_confusion(measured: Metrics) -> bytes:
    """A PNG of the confusion matrix, each row as shares of its label's examples; numbers where there is room."""
    figure, (axes,) = _panels(1)
    counts = np.array(measured.confusion)
    names = [printable(each["name"]) for each in measured.classes]
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="label")
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for (row, column), count in np.ndenumerate(counts):
            dark = count > counts[row].sum() / 2
            axes.text(column, row, count, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _panels(count: int):
    """A figure without a window, and its axes in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * count, 4.5), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])
