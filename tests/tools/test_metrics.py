"""Metrics against their definitions, written out example by example."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flaxnets.tools.metrics import average, draw_confusion, draw_reliability, log_probabilities, measure


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(2, 8), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))
def test_metrics_are_what_they_are_defined_to_be(count, classes, seed, spread):
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, (count, classes))
    labels = random.integers(0, classes, count)
    found = measure(log_probabilities(logits), labels, [f"c{number}" for number in range(classes)])
    probabilities = [[np.exp(x) / sum(np.exp(row)) for x in row] for row in logits]
    ranks = [sorted(range(classes), key=lambda c, row=row: -row[c]) for row in logits]
    assert found.count == count
    assert found.top1 == pytest.approx(np.mean([label == rank[0] for label, rank in zip(labels, ranks, strict=True)]))
    in_five = [label in rank[:5] for label, rank in zip(labels, ranks, strict=True)]
    assert found.top5 == (pytest.approx(np.mean(in_five)) if classes > 5 else None)
    losses = [-np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert found.loss == pytest.approx(np.mean(losses))
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [i for i in range(count) if low < max(probabilities[i]) <= high]
        if inside:
            confidence = np.mean([max(probabilities[i]) for i in inside])
            accuracy = np.mean([ranks[i][0] == labels[i] for i in inside])
            error += len(inside) / count * abs(accuracy - confidence)
    assert found.ece == pytest.approx(error, abs=1e-12)
    for number, each in enumerate(found.classes):
        hits = sum(label == rank[0] == number for label, rank in zip(labels, ranks, strict=True))
        named = sum(rank[0] == number for rank in ranks)
        precision, recall = hits / max(named, 1), hits / max((labels == number).sum(), 1)
        assert each["name"] == f"c{number}"
        assert (each["precision"], each["recall"]) == pytest.approx((precision, recall))
        assert each["f1"] == pytest.approx(2 * precision * recall / max(precision + recall, 1e-9))
        assert each["count"] == sum(found.confusion[number]) == (labels == number).sum()
        assert found.confusion[number][number] == hits


def test_several_predictions_are_averaged_as_probabilities_or_as_logits():
    logits = [np.array([[0.0, 2.0, -1.0]]), np.array([[3.0, 0.0, 0.0]])]
    softmax = [np.exp(each) / np.exp(each).sum() for each in logits]
    np.testing.assert_allclose(np.exp(average(logits, "probability")), np.mean(softmax, axis=0))
    product = np.sqrt(softmax[0] * softmax[1])
    np.testing.assert_allclose(np.exp(average(logits, "logit")), product / product.sum())


def test_a_sure_and_wrong_prediction_has_a_finite_loss():
    sure = [np.array([[0.0, 1000.0]], np.float32)] * 2
    for how in ("probability", "logit"):
        assert 80 < measure(average(sure, how), np.array([0]), ["a", "b"]).loss <= 1000


def test_diagrams_are_drawn_whatever_the_classes_are_called():
    random = np.random.default_rng(0)
    names = ["$x$", "_a", "b\N{SNOWMAN}", *map(str, range(18))]
    logits = random.normal(0, 2, (100, 21))
    found = measure(log_probabilities(logits), random.integers(0, 21, 100), names)
    few = measure(log_probabilities(logits[:, :3]), random.integers(0, 3, 100), names[:3])
    for png in (draw_reliability([("$_{a", found), ("b", few)]), draw_confusion(found), draw_confusion(few)):
        assert len(np.unique(np.asarray(Image.open(io.BytesIO(png)).convert("L")))) > 10
