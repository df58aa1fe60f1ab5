"""Names of topologies, and the sentences that refuse them."""

import pytest

from flaxnets.errors import ConfigError
from flaxnets.planning import topologies
from flaxnets.planning.chips import CHIPS


@pytest.mark.parametrize(
    ("text", "chips"), [("v5e:1x1", 1), ("v5e:4x4", 16), ("v5p:2x2x4", 16), ("tpu7x:4x8x8", 256), ("cpu:256", 256)]
)
def test_a_name_says_how_many_chips(text, chips):
    name = topologies.parse(text)
    assert (name.text, name.chips) == (text, chips)
    assert (name.chip is None) == text.startswith("cpu")


@pytest.mark.parametrize(
    "text", ["v9:2x2", "v5e", "v5e:", "v5e:4", "v5e:4x0", "v5e:2x2x1", "v5p:2x2", "cpu:2x2", "cpu:-1"]
)
def test_an_unknown_name_gets_all_that_are_known(text):
    with pytest.raises(ConfigError) as caught:
        topologies.parse(text)
    sentence = str(caught.value)
    assert sentence.startswith(f"There is no topology {text!r}. ")
    for kind, chip in CHIPS.items():
        assert f"{kind}:{', '.join(chip.shapes)}" in sentence
    assert sentence.endswith("; cpu:N.")


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        topologies.devices_of(topologies.parse("v5e:4x4"))
    assert str(caught.value) == (
        "Planning for v5e:4x4 needs libtpu, which is absent; run: pip install 'flaxnets[tpu]' (no TPU is needed), or "
        "plan without it by --topology cpu:16."
    )
