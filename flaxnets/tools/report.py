"""`flaxnets report`: one HTML file that shows what runs were, how they went, what they reached and where they fail."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flaxnets.errors import ConfigError
from flaxnets.tools.evaluate import predict, test_source
from flaxnets.tools.metrics import Metrics, average, measure
from flaxnets.tools.options import add_data, add_inference, check_inference
from flaxnets.tools.outputs import check_new, write_new
from flaxnets.tools.trained import open_run

if TYPE_CHECKING:
    import numpy as np

    from flaxnets.data.sources import Source
    from flaxnets.summaries import Summary
    from flaxnets.tools.explain import Explanation
    from flaxnets.tools.trained import Trained

MOST_WRONG = 12  # pictures a run


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A test picture that a run is wrong about: where it comes from, its class, and what the network sees in it."""

    name: str
    label: str
    predicted: str
    seen: "Explanation"


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a report says of one run.

    Attributes:
      name: the run folder, as it was given.
      record: run.json.
      step: of the checkpoint that was tested, the best one.
      lines: of metrics.jsonl.
      measured: on the test pictures.
      mistakes: the most confident ones, worst first.
      cost: of the network.
    """

    name: str
    record: dict[str, Any]
    step: int
    lines: list[dict[str, Any]]
    measured: Metrics
    mistakes: list[Mistake]
    cost: "Summary"

    def speed(self) -> dict[str, float]:
        """Medians over the run: training images a second, and the share of the time that it waited for data."""
        import numpy as np

        train = [line for line in self.lines if line["split"] == "train" and "images_per_second" in line]
        names = ("images_per_second", "data_wait") if train else ()
        return {name: float(np.median([line[name] for line in train])) for name in names}

    def as_json(self) -> dict[str, Any]:
        """The figures, as JSON values."""
        mistakes = [{"image": each.name, "label": each.label, "predicted": each.predicted} for each in self.mistakes]
        cost = {"params": self.cost.params, "macs": self.cost.macs}
        return {
            "name": self.name,
            "step": self.step,
            **cost,
            **self.speed(),
            **self.measured.as_json(),
            "mistakes": mistakes,
        }


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(
        prog="flaxnets report",
        description=f"{description} The best checkpoint of each run is tested anew. The file needs no network and no "
        "other file.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder; of several, differences come first")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="new file; default for one run: its report.html, written anew"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    add_data(parser)
    add_inference(parser)
    arguments = parser.parse_args(options)
    check_inference(arguments)
    if arguments.out:
        check_new(arguments.out)
    elif len(arguments.runs) > 1:
        raise ConfigError("A report of several runs belongs to none of them; say where to write it by --out FILE.html.")
    networks = [open_run(run) for run in arguments.runs]
    sources = [test_source([network], arguments) for network in networks]
    reports = [
        make_report(network, source, arguments.batch_size, arguments.compilation_cache)
        for network, source in zip(networks, sources, strict=True)
    ]
    from flaxnets.tools.report_page import page

    html = page(reports).encode()
    if arguments.out:
        write_new(arguments.out, html)
    else:
        _replace(Path(arguments.runs[0]) / "report.html", html)
    if arguments.json:
        print(json.dumps([report.as_json() for report in reports], indent=2))
    else:
        for report in reports:
            print(f"{report.name}: top-1 {report.measured.top1:.2%} on {report.measured.count:,} test pictures")
        print(f"The report is in {arguments.out or Path(arguments.runs[0]) / 'report.html'}.")
    return 0


def make_report(network: "Trained", source: "Source", batch_size: int, cache: Path) -> Report:
    """Test a run's network, and gather what its folder says.

    Args:
      network: of a run.
      source: test pictures of the network's classes.
      batch_size, cache: as of `flaxnets.tools.inference.Network`.

    Raises:
      DataError: a picture is broken.
      WeightsError: a logit is not finite.
    """
    import numpy as np

    from flaxnets.summaries import summary
    from flaxnets.training.log import read_metrics

    assert network.run
    logits, labels = predict(network, source, [network.transforms], batch_size, cache)
    predicted = average(logits, "probability")
    wrong = np.flatnonzero(predicted.argmax(-1) != labels)
    worst = wrong[np.argsort(-predicted.max(-1)[wrong], kind="stable")][:MOST_WRONG]
    settings = {"num_classes": len(network.class_names), "in_channels": network.channels, **network.options}
    return Report(
        name=network.name,
        record=network.run.record,
        step=network.run.step,
        lines=read_metrics(network.run.folder),
        measured=measure(predicted, labels, source.class_names),
        mistakes=_mistakes(network, source, worst, labels) if len(worst) else [],
        cost=summary(network.arch, network.image_size, **settings),
    )


def _mistakes(network: "Trained", source: Any, worst: "np.ndarray", labels: "np.ndarray") -> list[Mistake]:
    import numpy as np

    from flaxnets.data.loading import load
    from flaxnets.tools.explain import explain

    source = dataclasses.replace(source, channels=network.channels)
    fixed = np.random.default_rng(0)  # which transforms for testing ignore
    pictures = [load(source, int(index), network.transforms, fixed)[0] for index in worst]
    return [
        Mistake(
            name=str(source.examples[int(index)]["name"]),
            label=source.class_names[labels[index]],
            predicted=source.class_names[seen.explained],
            seen=seen,
        )
        for index, seen in zip(worst, explain(network, pictures), strict=True)
    ]


def _replace(file: Path, content: bytes) -> None:
    """Write a run's own report, at once, in place of an older one. Raises ConfigError where that cannot be."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}; choose another place by --out FILE.html.") from error
