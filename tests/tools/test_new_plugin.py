"""`flaxnets new-plugin` writes a package that works at once."""

import json

import pytest

from flaxnets.errors import ArchitectureError
from flaxnets.tools.new_plugin import write_plugin


def test_the_package_installs_lists_passes_its_test_and_trains(flaxnets, fresh_environment, data_dir, shared_folder):
    folder = flaxnets.folder / "leaf_net_package"
    said = flaxnets("new-plugin", "leaf_net", folder).stdout
    assert "flaxnets_leaf_net/__init__.py" in said
    assert not [path for path in folder.rglob("*") if "my_net" in path.name]
    fresh_environment.install(folder)
    run = fresh_environment.run
    (row,) = json.loads(run(folder, "-m", "flaxnets", "list", "leaf_net", "--json").stdout)
    assert (row["package"], row["paper"]) == ("flaxnets-leaf_net 0.1.0", "unpublished")
    tested = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout
    places = ["--data.dir", data_dir, "--compilation-cache", shared_folder / "compiled"]
    options = ["--arch", "leaf_net", "--options", "width", 8, "--steps", 3, "--schedule.warmup", "0 steps"]
    trained = run(flaxnets.folder, "-m", "flaxnets", "train", *options, *places)
    assert "best test accuracy" in trained.stdout, trained.stderr


def test_the_name_of_the_help_will_do(tmp_path):
    written = write_plugin("my_net", tmp_path / "new")
    assert tmp_path / "new" / "flaxnets_my_net" / "__init__.py" in written


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "My-Net",
            "'My-Net' cannot name an architecture; use lower-case letters, digits and underscores between them.",
        ),
        ("net_", "'net_' cannot name an architecture; use lower-case letters, digits and underscores between them."),
        ("class", "'class' is a word of the package's own code; choose another name."),
        ("jax", "'jax' is a word of the package's own code; choose another name."),
        ("build", "'build' is a word of the package's own code; choose another name."),
        ("resnet", "There is a package flaxnets_resnet already; choose another name."),
        ("resnet50", "The package flaxnets has an architecture 'resnet50' already; choose another name."),
        ("fine_net", "is not empty; give a new folder."),
    ],
)
def test_mistakes_leave_everything_as_it_was(tmp_path, name, message):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArchitectureError) as error:
        write_plugin(name, tmp_path)
    assert str(error.value).endswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
