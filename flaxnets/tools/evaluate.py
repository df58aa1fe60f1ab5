"""`flaxnets evaluate`: how good trained networks are on a data set, each alone and all together."""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from flaxnets.errors import ConfigError, DataError, printable
from flaxnets.tools.classifier import Classifier
from flaxnets.tools.exported import open_classifiers
from flaxnets.tools.metrics import Metrics, average, draw_confusion, draw_reliability, measure
from flaxnets.tools.options import add_data, add_inference, check_inference, read_data
from flaxnets.tools.outputs import Progress, check_new, write_folder
from flaxnets.tools.trained import add_network

if TYPE_CHECKING:
    from flaxnets.data.augmentation import Transform
    from flaxnets.data.sources import Source

MOST_ROWS = 20  # of a table for people


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(prog="flaxnets evaluate", description=description)
    parser.add_argument(
        "networks", nargs="+", metavar="RUN", help="run folder, exported file, or a weights file with --arch"
    )
    parser.add_argument(
        "--average",
        choices=("probability", "logit"),
        default="probability",
        help="what is averaged over views and networks; default: probability",
    )
    parser.add_argument("--flip", action="store_true", help="see each picture mirrored, too")
    parser.add_argument("--crops", type=int, choices=(1, 5), default=1, help="5: see the centre and the four corners")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder for evaluation.json and diagrams (PNG)")
    add_network(parser)
    add_data(parser)
    add_inference(parser)
    arguments = parser.parse_args(options)
    check_inference(arguments)
    if arguments.out:
        check_new(arguments.out)
    networks = open_classifiers(arguments.networks, arguments)
    source = test_source(networks, arguments)
    views = [network.views(arguments.crops, arguments.flip) for network in networks]
    logits = []
    labels = np.zeros(0, int)
    with Progress("evaluate", sum(map(len, views)) * len(source.examples)) as progress:
        for network, seen in zip(networks, views, strict=True):
            found, labels = predict(
                network, source, seen, arguments.batch_size, arguments.compilation_cache, progress.advance
            )
            logits.append(found)
    names = [network.name for network in networks]
    predicted = [average(each, arguments.average) for each in logits]
    if len(networks) > 1:
        names.append(f"ensemble of {len(networks)}")
        predicted.append(average([view for each in logits for view in each], arguments.average))
    measured = [(name, measure(each, labels, source.class_names)) for name, each in zip(names, predicted, strict=True)]
    found = json.dumps([{"name": name, **each.as_json()} for name, each in measured], indent=2)
    if arguments.out:
        diagrams = {"reliability.png": draw_reliability(measured), "confusion.png": draw_confusion(measured[-1][1])}
        write_folder(arguments.out, {"evaluation.json": found.encode(), **diagrams})
    if arguments.json:
        print(found)
    else:
        _print(measured)
    return 0


def predict(
    network: Classifier,
    source: "Source",
    views: Sequence[tuple["Transform", ...]],
    batch_size: int,
    cache: Path,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """A network's logits [n, classes] for all examples of a source, as it sees them in each view; and labels [n].

    Args:
      network: any.
      source: pictures, made grey or coloured as the network wants them.
      views: what a picture goes through, see `Trained.views`.
      batch_size, cache: as of `classifying`. The result depends on neither, nor on the number of devices, but for
        rounding.
      advance: called after each picture.

    Raises:
      DataError: a picture is broken.
      WeightsError: a logit is not finite.
    """
    from flaxnets.data.loading import load
    from flaxnets.tools.inference import classifying

    compiled = classifying(network, batch_size, cache)
    source = dataclasses.replace(source, channels=network.channels)
    fixed, found, labels = np.random.default_rng(0), [], []
    for view in views:
        rows, labels = [], []
        one = functools.partial(load, source, transforms=view, random=fixed)
        for seen in compiled.stream(range(len(source.examples)), one):
            rows.append(seen.outputs["logits"])
            labels.append(seen.label)
            advance()
        found.append(np.stack(rows))
    return found, np.array(labels)


def test_source(networks: list[Classifier], arguments: argparse.Namespace) -> "Source":
    """The pictures to evaluate on. Raises DataError where the networks' classes are others than theirs."""
    from flaxnets.data import check, sources

    default = next((network.data for network in networks if network.data), None)
    data = read_data(arguments, default)
    if data is None:
        raise ConfigError("Only a run knows its data; add --data.name, such as folder:PATH.")
    source = sources.open_sources(data)[1]
    for network in networks:
        compare_classes(network, source.class_names)
    return check.usable([source], data.on_error)[0]


def compare_classes(network: Classifier, class_names: tuple[str, ...]) -> None:
    """Raise DataError where a network knows other classes than a data set has; numbers are no names."""
    count = len(network.class_names)
    if count != len(class_names):
        raise DataError(
            f"{network.name} knows {count} classes, and the data have {len(class_names)}; choose data with the "
            "network's classes by --data.name, or another network."
        )
    pairs = zip(network.class_names, class_names, strict=True)
    if network.class_names != tuple(map(str, range(count))) and any(a != b for a, b in pairs):
        ours, theirs = next((a, b) for a, b in zip(network.class_names, class_names, strict=True) if a != b)
        raise DataError(
            f"{network.name} knows other classes than the data have: {printable(ours)!r} there, {printable(theirs)!r} "
            "here; choose data with the network's classes by --data.name, or another network."
        )


def _print(measured: list[tuple[str, Metrics]]) -> None:
    """Tables: all networks, then of the last, which is the ensemble if there is one, classes and confusions."""
    console = Console(highlight=False, soft_wrap=True)
    last = measured[-1][1]
    table = _table("", "top-1", "top-5", "loss", "calibration error")
    for name, each in measured:
        top5 = "-" if each.top5 is None else f"{each.top5:.2%}"
        table.add_row(printable(name), f"{each.top1:.2%}", top5, f"{each.loss:.4f}", f"{each.ece:.2%}")
    console.print(table, f"{last.count:,} pictures", markup=False)
    hardest = sorted(last.classes, key=lambda each: each["f1"])
    table = _table("class, hardest first", "precision", "recall", "F1", "pictures")
    for each in hardest[:MOST_ROWS]:
        figures = (f"{each[figure]:.2%}" for figure in ("precision", "recall", "f1"))
        table.add_row(printable(each["name"]), *figures, f"{each['count']:,}")
    console.print(table, markup=False)
    pairs = [(count, *place) for place, count in np.ndenumerate(last.confusion) if count and place[0] != place[1]]
    table = _table("label", "taken for", "pictures")
    for count, label, taken in sorted(pairs, reverse=True)[:MOST_ROWS]:
        names = (printable(last.classes[index]["name"]) for index in (label, taken))
        table.add_row(*names, f"{count:,}")
    if pairs:
        console.print(table, markup=False)
    if max(len(hardest), len(pairs)) > MOST_ROWS:
        console.print(f"The first {MOST_ROWS} of each; --json prints all.")


def _table(*columns: str) -> Table:
    """An empty table; numbers stand to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        words = column in ("", "label", "taken for") or column.startswith("class")
        table.add_column(column, justify="left" if words else "right")
    return table
