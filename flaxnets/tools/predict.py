"""`flaxnets predict`: the likeliest classes of pictures, one by one or by the thousand."""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxnets.errors import ConfigError, printable
from flaxnets.tools.classifier import Classifier
from flaxnets.tools.exported import open_classifiers
from flaxnets.tools.metrics import average
from flaxnets.tools.options import add_inference, check_counts, check_inference
from flaxnets.tools.outputs import Progress, check_new, write_new
from flaxnets.tools.trained import add_network

if TYPE_CHECKING:
    from flaxnets.tools.inference import Seen

PLOTTED, COLUMNS = 48, 4  # pictures in the plot, and in a row of it


def main(options: list[str], description: str) -> int:
    """Carry out the command; return 0, or 1 if a picture is broken. Raises FlaxnetsError as all commands do."""
    parser = argparse.ArgumentParser(
        prog="flaxnets predict",
        description=f"{description} Broken pictures are reported on their lines; the exit code is then 1.",
    )
    parser.add_argument("network", metavar="RUN", help="run folder, exported file, or a weights file with --arch")
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="image file, folder of them, or - for names on standard input"
    )
    parser.add_argument(
        "--with",
        dest="others",
        nargs="+",
        default=[],
        metavar="RUN",
        help="other networks of the same classes, whose probabilities are averaged with those of the first",
    )
    parser.add_argument("--top", type=int, default=5, help="classes a picture; default: 5")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object a line")
    form.add_argument("--csv", action="store_true", help="print CSV with a header")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help=f"new file for a grid of the first {PLOTTED} pictures"
    )
    add_network(parser)
    add_inference(parser)
    arguments = parser.parse_args(options)
    check_inference(arguments)
    check_counts(arguments, "top")
    if arguments.plot:
        check_new(arguments.plot)
    networks = open_classifiers([arguments.network, *arguments.others], arguments)
    network = networks[0]
    if not network.class_names:
        raise ConfigError(f"{network.name} has no classifier, so it can predict nothing; try flaxnets features.")
    for other in networks[1:]:
        if other.class_names != network.class_names:
            raise ConfigError(f"{other.name} knows other classes than {network.name}; leave it out of --with.")

    from flaxnets.tools.inference import classifying
    from flaxnets.tools.pictures import files_of, loader

    files = files_of(arguments.pictures)
    few = list(itertools.islice(files, 2))
    batch_size = arguments.batch_size if len(few) > 1 else 1
    streams = [
        classifying(each, batch_size, arguments.compilation_cache).stream(names, loader(each))
        for each, names in zip(networks, itertools.tee(itertools.chain(few, files), len(networks)), strict=True)
    ]
    write = _writer(arguments, network)
    broken, plotted = 0, []
    with Progress("predict", None, hidden=sys.stdout.isatty()) as progress:
        for seen in map(_together, zip(*streams, strict=True)):
            write(seen)
            broken += seen.problem is not None
            if arguments.plot and seen.pixels is not None and len(plotted) < PLOTTED:
                plotted.append((seen.pixels, _caption(seen, network)))
            progress.advance()
    if plotted:
        from flaxnets.tools.grid import picture_grid

        write_new(arguments.plot, picture_grid([plotted[i : i + COLUMNS] for i in range(0, len(plotted), COLUMNS)]))
    return 1 if broken else 0


def _together(answers: tuple["Seen[str]", ...]) -> "Seen[str]":
    """What several networks make of one picture, as the first one sees it."""
    first = answers[0]
    if first.problem or len(answers) == 1:
        return first
    (logits,) = average([each.outputs["logits"][None] for each in answers], "probability")
    return first._replace(outputs={"logits": logits})


def _ranked(seen: "Seen[str]", network: Classifier) -> Iterator[tuple[str, float]]:
    """Classes and their probabilities, the likeliest first; of equal ones the first."""
    logits = seen.outputs["logits"].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    for number in np.argsort(-probabilities, kind="stable"):
        yield network.class_names[number], float(probabilities[number])


def _writer(arguments: argparse.Namespace, network: Classifier) -> Callable[["Seen[str]"], None]:
    """What prints a picture's line, in the form that the user chose."""
    top = min(arguments.top, len(network.class_names))
    table = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.csv:
        columns = [f"{what}_{number}" for number in range(1, top + 1) for what in ("class", "probability")]
        table.writerow(["picture", "label", *columns, "problem"])

    def as_csv(seen: "Seen[str]") -> None:
        ranked = [] if seen.problem else list(itertools.islice(_ranked(seen, network), top))
        cells = [cell for name, probability in ranked for cell in (printable(name), f"{probability:.6g}")] or [
            ""
        ] * 2 * top
        table.writerow([printable(seen.item), printable(_label(seen, network) or ""), *cells, seen.problem or ""])

    def as_json(seen: "Seen[str]") -> None:
        line: dict = {"picture": seen.item}
        if seen.problem:
            line["problem"] = seen.problem
        else:
            ranked = itertools.islice(_ranked(seen, network), top)
            line["label"] = _label(seen, network)
            line["classes"] = [{"name": name, "probability": probability} for name, probability in ranked]
        print(json.dumps(line), flush=True)

    def as_text(seen: "Seen[str]") -> None:
        ranked = [] if seen.problem else itertools.islice(_ranked(seen, network), top)
        answers = [f"{probability:6.2%} {printable(name)}" for name, probability in ranked]
        print(f"{printable(seen.item)}  {'  '.join(answers) or f'cannot be used: {seen.problem}'}", flush=True)

    return as_csv if arguments.csv else as_json if arguments.json else as_text


def _label(seen: "Seen[str]", network: Classifier) -> str | None:
    return None if seen.label is None else network.class_names[seen.label]


def _caption(seen: "Seen[str]", network: Classifier) -> str:
    """`daisy 97 %`, and below it the real class, where it is known and another."""
    name, probability = next(_ranked(seen, network))
    label = _label(seen, network)
    real = f"\nreally {printable(label)}" if label not in (None, name) else ""
    return f"{printable(name)} {probability:.0%}{real}"
