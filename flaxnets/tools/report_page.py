"""The page of `flaxnets report`: figures in, one self-contained HTML file out."""

import base64
import io
import itertools
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from flaxnets.tools.charts import Series, line_chart
from flaxnets.tools.explain import overlay
from flaxnets.tools.html import Html, table, tag
from flaxnets.tools.report import Mistake, Report
from flaxnets.tools.summary import count_text, shape_text

MOST_CLASSES = 20  # of a confusion matrix that is readable; of more classes, the most frequent confusions are listed
MOST_PAIRS = 30
COARSE = 64  # pixels a side, below which a picture is enlarged without smoothing, and kept as PNG
# Nothing is loaded and no script is run, whatever a name in the data may be.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CURVES = [
    # chart, whether its values are shares, lines: (split, metric, name, pattern)
    (
        "Accuracy",
        True,
        [
            ("train", "accuracy", "train", 1),
            ("test", "accuracy", "test", 0),
            ("test", "ema_accuracy", "test, averaged weights", 2),
        ],
    ),
    (
        "Loss",
        False,
        [("train", "loss", "train", 1), ("test", "loss", "test", 0), ("test", "ema_loss", "test, averaged weights", 2)],
    ),
    ("Learning rate", False, [("train", "learning_rate", "learning rate", 0)]),
    ("Gradient norm", False, [("train", "gradient_norm", "gradient norm", 0)]),
    ("Training images a second", False, [("train", "images_per_second", "images a second", 0)]),
]


def page(reports: list[Report]) -> str:
    """The HTML of a report on one run, or on several side by side."""
    sections = {
        "Differences": _differences(reports) if len(reports) > 1 else [],
        "Results": [_results(reports)],
        "Curves": [_curves(reports)],
        "Classes": _by_run(reports, _classes),
        "Confusion": _by_run(reports, _confusion),
        "Mistakes": _by_run(reports, _mistakes),
        "Cost": _by_run(reports, _cost),
        "Configuration": _by_run(reports, _configuration),
    }
    sections = {title: content for title, content in sections.items() if content}
    links = (tag("a", title, href=f"#{title.lower()}") for title in sections)
    parts = (tag("section", tag("h2", title), *content, id=title.lower()) for title, content in sections.items())
    names = ", ".join(report.name for report in reports)
    style = (resources.files("flaxnets.tools") / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{names}: flaxnets report"),
        tag("style", Html(style)),
    )
    body = tag("body", tag("h1", names), tag("nav", *links), tag("main", *parts))
    text = f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
    return text.encode(errors="backslashreplace").decode()  # a folder's name may hold bytes that are no text


def _by_run(reports: list[Report], section: Callable[[Report], list[Html]]) -> list[Html]:
    """A section's part of each run, side by side under their names where there are several."""
    if len(reports) == 1:
        return section(reports[0])
    return [tag("div", *(tag("div", tag("h3", each.name), *section(each)) for each in reports), class_="sides")]


def _differences(reports: list[Report]) -> list[Html]:
    every = [report.record["settings"] for report in reports]
    names = sorted({name for settings in every for name in settings})
    rows = [[name, *(_value(settings.get(name)) for settings in every)] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return [tag("p", "All settings are the same.")]
    return [table(["setting", *(report.name for report in reports)], rows, class_="words")]


def _results(reports: list[Report]) -> Html:
    speeds = [report.speed() for report in reports]
    rows = {
        "top-1": [f"{report.measured.top1:.2%}" for report in reports],
        "top-5": ["" if report.measured.top5 is None else f"{report.measured.top5:.2%}" for report in reports],
        "loss": [f"{report.measured.loss:.4f}" for report in reports],
        "calibration error": [f"{report.measured.ece:.2%}" for report in reports],
        "test pictures": [f"{report.measured.count:,}" for report in reports],
        "checkpoint of step": [f"{report.step:,}" for report in reports],
        "architecture": [str(report.record["settings"]["arch"]) for report in reports],
        "parameters": [count_text(report.cost.params) for report in reports],
        "multiply-adds an image": [count_text(report.cost.macs) for report in reports],
        "training images a second": [f"{s['images_per_second']:,.4g}" if s else "" for s in speeds],
        "time that training waited for data": [f"{s['data_wait']:.1%}" if s else "" for s in speeds],
    }
    rows = [[name, *values] for name, values in rows.items() if any(values)]
    return table(["", *(report.name for report in reports)], rows, class_="figures")


def _curves(reports: list[Report]) -> Html:
    charts = []
    for title, share, lines in CURVES:
        series = []
        for (number, report), (kind, (split, metric, name, pattern)) in itertools.product(
            enumerate(reports), enumerate(lines)
        ):
            found = [line for line in report.lines if line["split"] == split and metric in line]
            if found:
                several = len(reports) > 1
                series.append(
                    Series(
                        label=f"{report.name}, {name}" if several else name,
                        xs=[line["step"] for line in found],
                        ys=[line[metric] for line in found],
                        colour=number if several else kind,
                        pattern=pattern,
                    )
                )
        if series:
            charts.append(line_chart(title, "step", series, share=share))
    return tag("div", *charts, class_="charts")


def _classes(report: Report) -> list[Html]:
    rows = [
        [each["name"], *(f"{each[figure]:.1%}" for figure in ("precision", "recall", "f1")), f"{each['count']:,}"]
        for each in sorted(report.measured.classes, key=lambda each: each["f1"])
    ]
    return [table(["hardest first", "precision", "recall", "F1", "pictures"], rows, class_="figures")]


def _confusion(report: Report) -> list[Html]:
    names = [each["name"] for each in report.measured.classes]
    counts = np.array(report.measured.confusion)
    if len(names) > MOST_CLASSES:
        pairs = [(int(count), *place) for place, count in np.ndenumerate(counts) if count and place[0] != place[1]]
        rows = [[names[i], names[j], f"{count:,}"] for count, i, j in sorted(pairs, key=lambda p: -p[0])[:MOST_PAIRS]]
        return [table(["class", "taken for", "pictures"], rows, class_="words")]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    body = (
        tag("tr", tag("th", name, scope="row"), *(_cell(*cell) for cell in zip(row, share, strict=True)))
        for name, row, share in zip(names, counts.tolist(), shares.tolist(), strict=True)
    )
    titles = tag("tr", tag("th", "class \\ taken for"), *(tag("th", name, scope="col") for name in names))
    matrix = tag("table", tag("thead", titles), tag("tbody", *body), class_="confusion")
    return [tag("div", matrix, class_="scroll")]


def _cell(count: int, share: float) -> Html:
    return tag("td", f"{count:,}", style=f"--share: {share:.3f}", class_=None if count else "none")


def _mistakes(report: Report) -> list[Html]:
    if not report.mistakes:
        return [tag("p", "There are none on the test pictures.")]
    about = "The test pictures about which the network is most sure and wrong, and what made it say so (Grad-CAM)."
    return [
        tag("p", about, class_="soft"),
        tag("div", *(_picture(mistake) for mistake in report.mistakes), class_="pictures"),
    ]


def _picture(mistake: Mistake) -> Html:
    seen = mistake.seen
    coarse = "coarse" if max(seen.heat.shape) <= COARSE else None
    images = (
        tag("img", src=_data_uri(pixels), alt=text, class_=coarse)
        for pixels, text in (
            (seen.pixels, f"a picture of {mistake.label}"),
            (overlay(seen.pixels, seen.heat), "heat map"),
        )
    )
    caption = tag(
        "figcaption",
        f"{mistake.label}, taken for ",
        tag("b", mistake.predicted),
        f" ({seen.probabilities[seen.explained]:.1%}) ",
        tag("small", mistake.name),
    )
    return tag("figure", tag("div", *images), caption, class_="picture")


def _data_uri(pixels: np.ndarray) -> str:
    """A picture inside the page: uint8 [h, w, 1 or 3]."""
    kind = "png" if max(pixels.shape) <= COARSE else "jpeg"
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _cost(report: Report) -> list[Html]:
    """A row for the stem, each stage, the head and the classifier; every layer on demand."""
    found = report.cost
    parts: dict[str, list] = {}
    for row in found.rows:
        steps = row.path.split(".")
        parts.setdefault(" ".join(steps[:2]) if steps[0] == "stages" else steps[0], []).append(row)
    rows = [
        [
            name.replace("stages", "stage"),
            shape_text(layers[-1].output_shape[1:]),
            count_text(sum(layer.params for layer in layers)),
            count_text(sum(layer.macs for layer in layers)),
            count_text(layers[-1].receptive_field),
        ]
        for name, layers in parts.items()
    ]
    rows.append(["all", "", count_text(found.params), count_text(found.macs), ""])
    layers = [
        [row.path or row.kind, row.kind, shape_text(row.output_shape[1:]), count_text(row.params), count_text(row.macs)]
        for row in found.rows
    ]
    every = table(["layer", "kind", "output", "parameters", "multiply-adds"], layers, class_="figures")
    head = ["part", "output", "parameters", "multiply-adds", "receptive field"]
    about = f"For one image of {shape_text(found.input_shape[1:])}."
    return [
        tag("p", about, class_="soft"),
        table(head, rows, class_="figures"),
        tag("details", tag("summary", "Every layer"), every),
    ]


def _configuration(report: Report) -> list[Html]:
    record = report.record
    facts = {"command": " ".join(map(str, record["command"])), "commit": record["commit"], "python": record["python"]}
    rows = {**facts, **record["versions"]}
    settings = [[name, _value(value)] for name, value in record["settings"].items()]
    return [
        table(["setting", "value"], settings, class_="words"),
        tag(
            "details",
            tag("summary", "Command and versions"),
            table(["", ""], [[k, _value(v)] for k, v in rows.items()], class_="words"),
        ),
    ]


def _value(value: Any) -> str:
    """A setting as a person would write it."""
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
