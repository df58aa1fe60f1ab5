"""`flaxnets report`: sound HTML that needs nothing else, with the right figures, which no name can harm."""

import dataclasses
import html.parser
import json
import shutil

import numpy as np
import pytest

from flaxnets.cli import main
from flaxnets.summaries import summary
from flaxnets.tools.charts import MOST_POINTS, Series, line_chart
from flaxnets.tools.explain import Explanation
from flaxnets.tools.html import VOID, tag
from flaxnets.tools.metrics import measure
from flaxnets.tools.report import Mistake, Report
from flaxnets.tools.report_page import page

EVIL = "<script>alert(1)</script> & \"x\" 'y' </style>"


class Page(html.parser.HTMLParser):
    """What is in a page; every element that is opened is closed, and nothing refers to anything outside."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def check(self):
        assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(
            tag for tag, _ in self.elements
        )
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        for kind, attributes in self.elements:
            assert not any(name.startswith("on") for name in attributes)
            if kind == "img":
                assert attributes["src"].startswith("data:image/")
                assert attributes["alt"]
            else:
                assert "src" not in attributes
            if "href" in attributes:
                assert attributes["href"].startswith("#")
                assert attributes["href"][1:] in ids
        (policy,) = [a["content"] for t, a in self.elements if t == "meta" and a.get("http-equiv")]
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def made_report(name="runs/a", classes=("cat", "dog", "eel"), **settings) -> Report:
    random = np.random.default_rng(0)
    labels = np.arange(40) % len(classes)
    predicted = np.log(random.dirichlet(np.ones(len(classes)), 40))
    seen = Explanation(
        random.integers(0, 256, (8, 8, 1)).astype(np.uint8), np.exp(predicted[0]), 1, random.random((8, 8))
    )
    speed = {"images_per_second": 100.0, "data_wait": 0.25}
    lines = [
        {"step": step, "split": "train", "loss": 2 / step, "accuracy": 0.5, "learning_rate": 0.1 / step, **speed}
        for step in range(1, 401)
    ]
    lines += [{"step": 400, "split": "test", "loss": 0.125, "accuracy": 0.75, "ema_loss": 0.1, "ema_accuracy": 0.8125}]
    lines += [{"step": 300, "split": "skipped", "indices": [1, 2]}, {"step": 401, "split": "train"}]
    settings = {"arch": "resnet18", "weights": None, "optimizer.peak_lr": 0.1, "crop": [0.75, 4 / 3], **settings}
    record = {"settings": settings, "command": ["train", EVIL], "commit": None, "python": "3", "versions": {"jax": "1"}}
    mistakes = [Mistake("cat/1.png", "cat", "dog", seen)]
    cost = summary("resnet18", 32, num_classes=len(classes), width=0.125)
    return Report(name, record, 400, lines, measure(predicted, labels, classes), mistakes, cost)


def test_the_page_of_one_run_has_every_section_and_its_figures():
    report = made_report()
    read = Page(page([report]))
    read.check()
    text = " ".join(read.words)
    headings = [words for words in read.words if words in text]
    for section in ("Results", "Curves", "Classes", "Confusion", "Mistakes", "Cost", "Configuration"):
        assert headings.count(section) == 2  # the link and the heading
    assert "Differences" not in text
    measured = report.measured
    for figure in (f"{measured.top1:.2%}", f"{measured.ece:.2%}", f"{measured.loss:.4f}", "25.0%", "0.75, 1.33333"):
        assert figure in read.words
    for legend in (" train: 50%", " test: 75%", " test, averaged weights: 81.25%", " learning rate: 0.00025"):
        assert legend in read.words
    cells = [words for words in read.words if words.isdigit()]
    for row in measured.confusion:
        assert all(str(count) in cells for count in row)
    assert [t for t, _ in read.elements].count("img") == 2
    assert f"{report.cost.params:,}" in read.words
    assert "stage 3" in read.words


def test_several_runs_stand_side_by_side_and_differences_come_first():
    reports = [made_report("runs/a"), made_report("runs/b", **{"optimizer.peak_lr": 0.4, "ema": 0.99})]
    read = Page(page(reports))
    read.check()
    start = read.words.index("Differences", read.words.index("Differences") + 1)
    assert read.words[start : start + 10] == [
        "Differences", "setting", "runs/a", "runs/b", "ema", "-", "0.99", "optimizer.peak_lr", "0.1", "0.4"
    ]  # fmt: skip
    assert " runs/b, test: 75%" in read.words
    assert "All settings are the same." in page([reports[0], reports[0]])


def test_names_of_users_are_text_wherever_they_stand():
    report = made_report(EVIL, (EVIL, "b", "c"), arch=EVIL, **{EVIL: EVIL})
    mistakes = [dataclasses.replace(report.mistakes[0], name=EVIL, label=EVIL, predicted=EVIL)]
    for several in ([], [made_report("runs/b")]):
        text = page([dataclasses.replace(report, mistakes=mistakes), *several])
        read = Page(text)
        read.check()
        assert "<script" not in text
        assert text.count("</style>") == 1
        assert " ".join(read.words).count(EVIL) >= 12
    assert b"bad\\udcff" in page([made_report("bad\udcff", ("bad\udcff", "b", "c"))]).encode()


def test_many_classes_are_listed_by_what_is_confused_most():
    classes = tuple(f"class {number}" for number in range(21))
    report = made_report(classes=classes)
    counts = np.array(report.measured.confusion)
    np.fill_diagonal(counts, 0)
    text = page([report])
    start = text.index("taken for</th>")
    i, j = np.argwhere(counts == counts.max())[0]
    first = f'<th scope="row">class {i}</th><td>class {j}</td><td>{counts.max()}</td>'
    assert 0 < text.index(first) - start < 200
    assert 'class="confusion"' not in text


def test_a_run_without_mistakes_or_metrics_says_so():
    report = dataclasses.replace(made_report(), mistakes=[], lines=[])
    read = Page(page([report]))
    assert "There are none on the test pictures." in read.words
    assert "training images a second" not in read.words


def test_a_chart_keeps_the_ends_and_means_of_long_lines_and_places_points_right():
    xs = list(range(1000))
    chart = line_chart("Loss", "step", [Series("train", xs, xs, 0), Series("one", [500], [500], 1)])
    read = Page(chart)
    paths = [a["d"] for t, a in read.elements if t == "path" and a["d"].count("L") > 1]
    points = np.array([[float(n) for n in point.split()] for point in paths[0][1:].split("L")])
    assert len(points) == MOST_POINTS
    assert np.abs(np.diff(points[:, 0], 2)).max() < 0.5  # evenly spread, and straight
    assert np.abs(np.diff(points[:, 1], 2)).max() < 0.5
    (dot,) = [a for t, a in read.elements if t == "circle"]
    assert abs(float(dot["cy"]) - np.interp(float(dot["cx"]), points[:, 0], points[:, 1])) < 0.5
    assert float(dot["cx"]) == (46 + 348) / 2  # between the axis on the left and the margin on the right
    assert {"0", "200", "1,000", " train: 999"} <= set(read.words)


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.5, 0.5], [1e-9, 2e-9], [-3.0, 1e6]])
def test_a_chart_of_any_range_stays_inside(values):
    read = Page(line_chart("x", "step", [Series("a", [1, 1 + len(values)], values, 0)]))
    path = next(a["d"] for t, a in read.elements if t == "path")
    for point in path[1:].split("L"):
        x, y = map(float, point.split())
        assert 0 <= x <= 360
        assert 0 <= y <= 210


def test_an_element_escapes_its_text_and_attributes():
    assert tag("p", "<", tag("img", alt='"', src=None), class_="a&b") == '<p class="a&amp;b">&lt;<img alt="&quot;"></p>'


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the trained run, to write a report into."""
    return shutil.copytree(trained_run.folder, tmp_path / "run")


def test_the_report_of_a_run_agrees_with_evaluate(run, trained_run, tmp_path, capsys):
    cache = ["--compilation-cache", str(tmp_path / "cache")]
    (run / "report.html").write_text("an older report")
    assert main(["report", str(run), *cache, "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run), *cache, "--json"]) == 0
    (evaluated,) = json.loads(capsys.readouterr().out)
    for name, value in evaluated.items():
        assert figures[name] == value, name
    read = Page((run / "report.html").read_text())
    read.check()
    assert f"{evaluated['top1']:.2%}" in read.words
    wrong = round((1 - evaluated["top1"]) * evaluated["count"])
    assert len(figures["mistakes"]) == min(wrong, 12) > 0
    for mistake in figures["mistakes"]:
        assert mistake["image"] in read.words
        assert mistake["label"] != mistake["predicted"]
        assert f"/{mistake['label']}/" in mistake["image"]
    assert sorted(path.name for path in run.iterdir()) == sorted(
        {*(path.name for path in trained_run.folder.iterdir()), "report.html"}
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none"], "There is no run folder none; give a folder that `flaxnets train` wrote."),
        (["resnet18"], "There is no run folder resnet18; give a folder"),
        (["empty"], "There is no run in empty; give a folder that `flaxnets train` wrote."),
        (
            ["{run}", "{run}"],
            "A report of several runs belongs to none of them; say where to write it by --out FILE.html",
        ),
        (["{run}", "--out", "mine.html"], "mine.html exists already and is left as it is; choose another name."),
        (["{run}", "--data.name", "folder:empty"], "empty"),
        (["{run}", "--batch-size", "0"], "--batch-size cannot be 0; give a whole number above 0."),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(options, message, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    assert main(["report", *(option.format(run=trained_run.folder) for option in options)]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine.html"]
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert not (trained_run.folder / "report.html").exists()
