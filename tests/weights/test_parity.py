"""Reference networks of torchvision, timm and CBAM's authors give the same logits here, through the public importer."""

import numpy as np
import pytest
from golden import REFERENCES, checkpoint, images, infer

import flaxnets


@pytest.mark.parametrize("name", REFERENCES)
def test_logits_are_those_of_the_reference(name):
    reference = REFERENCES[name]
    model = flaxnets.create(name, weights=checkpoint(dict(reference["tensors"])))
    logits = infer(model, images(reference["size"], reference["size"]))
    error = np.abs(logits[:, :16] - reference["logits_first_16"]).max()
    assert error < 1e-3 * reference["logits_std"]
    assert logits.argmax(-1).tolist() == reference["argmax"]
