"""The registry finds plugins by real entry points, without importing them."""

import subprocess
import sys

import pytest

from flaxnets import available, registry
from flaxnets.cli import main
from flaxnets.errors import ArchitectureError


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Put a distribution with one architecture on the path, as its files would lie in site-packages."""

    def install(name: str, source: str, architecture: str, module: str = "", value: str = "", info: str = "") -> None:
        module = module or name.replace("-", "_")
        file = tmp_path / (module.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        folder = tmp_path / (info or f"{name.replace('-', '_')}-1.2.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        value = value or f"{module}:{architecture}"
        (folder / "entry_points.txt").write_text(f"[flaxnets.architectures]\n{architecture} = {value}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


GOOD = """
from flaxnets.plugin import Architecture
from flaxnets_resnet import build_resnet
PAPER = "arXiv:1234.5678"
good_net = Architecture(build=build_resnet, num_params=12, paper=PAPER)
"""


def test_lists_names_in_a_natural_order():
    names = available("resnet[0-9]*")
    assert [name for name in names if name in ("resnet18", "resnet50", "resnet101")] == [
        "resnet18",
        "resnet50",
        "resnet101",
    ]
    assert available("no such*") == []


def test_listing_reads_what_the_source_states_and_imports_nothing(distribution):
    distribution("good-plugin", GOOD, "good_net", module="good_plugin.deep.nets")
    (entry,) = registry.available("good*")
    assert entry.published() == {"num_params": 12, "paper": "arXiv:1234.5678"}
    assert not any(name.startswith("good_plugin") for name in sys.modules)
    assert registry.get("good_net").num_params == 12


@pytest.mark.parametrize("source", ["good_net = make()", "good_net = (", "other = 1", "good_net = make(num_params=n)"])
def test_listing_goes_on_where_a_source_states_nothing(distribution, source):
    distribution("vague", source, "good_net")
    (entry,) = registry.available("good_net")
    assert entry.published() == {}


@pytest.mark.parametrize("value", ["a-dash:a_net", "a b:c:d", ":", "a_net"])
def test_listing_goes_on_where_an_entry_point_is_none(distribution, value):
    distribution("vague", GOOD, "good_net", value=value)
    (entry,) = registry.available("good_net")
    assert entry.published() == {}
    with pytest.raises(ArchitectureError, match=r"^The plugin of 'good_net' .*; mend .*`pip uninstall vague`\.$"):
        registry.get("good_net")


def test_text_of_plugins_is_printed_as_it_is(distribution, capsys):
    distribution("marked-plugin", GOOD.replace("arXiv:1234.5678", "see [/docs] [red]"), "good_net")
    for line in (["list", "good_net"], ["info", "good_net"]):
        assert main(line) == 0
        assert "see [/docs] [red]" in capsys.readouterr().out


def test_a_package_whose_metadata_are_there_twice_is_one(distribution):
    distribution("good-plugin", GOOD, "good_net")
    distribution("good-plugin", GOOD, "good_net", info="~ood_plugin-1.2.dist-info")  # of an interrupted pip
    assert registry.find("good_net").label == "good_net"


def test_an_unknown_name_gets_the_nearest_names():
    with pytest.raises(ArchitectureError, match=r"^No architecture named 'resnet5'\. Did you mean .*resnet50.*install"):
        registry.find("resnet5")


def test_a_shared_name_must_be_qualified(distribution):
    distribution("evilnet", GOOD.replace("good_net", "resnet50"), "resnet50")
    with pytest.raises(ArchitectureError) as error:
        registry.get("resnet50")
    assert str(error.value) == (
        "2 installed packages provide 'resnet50'. Pick one: --arch evilnet:resnet50 or --arch flaxnets:resnet50."
    )
    assert registry.get("evilnet:resnet50").num_params == 12
    assert registry.get("flaxnets:resnet50").num_params == 25_557_032
    assert available("resnet50") == ["evilnet:resnet50", "flaxnets:resnet50"]


@pytest.mark.parametrize("source", ["import nothing_of_this_name", "raise SystemExit('nothing_of_this_name')"])
def test_a_broken_plugin_breaks_only_itself(distribution, source):
    distribution("broken-plugin", source, "broken_net")
    assert "broken_net" in available()
    assert registry.get("resnet18").num_params == 11_689_512
    with pytest.raises(
        ArchitectureError, match=r"broken-plugin 1\.2.*nothing_of_this_name.*`pip uninstall broken-plugin`"
    ):
        registry.get("broken_net")


def test_an_entry_point_must_be_an_architecture(distribution):
    distribution("odd", "odd_net = 3", "odd_net")
    with pytest.raises(
        ArchitectureError, match=r"points at a int; let odd:odd_net be a flaxnets\.plugin\.Architecture"
    ):
        registry.get("odd_net")


def test_importing_and_listing_load_neither_jax_nor_a_plugin():
    code = (
        "import sys, flaxnets; flaxnets.available(); from flaxnets.cli import main; main(['list']); main(['--help'])\n"
        "heavy = {'jax', 'flax', 'numpy', 'flaxnets_resnet', 'tensorflow_datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
