"""What a plan knows of data sets that are not on this machine."""

import pytest

from flaxnets.config import Data
from flaxnets.errors import DataError
from flaxnets.planning.data_facts import DataFacts, facts_of


def test_imagenet_need_not_be_here(tmp_path):
    data = Data(name="imagenet2012", test="validation", dir=tmp_path)
    assert facts_of(data, None, None) == DataFacts(1_281_167, 1000, 3)
    assert facts_of(data, 500, None) == DataFacts(500, 1000, 3)
    with pytest.raises(DataError, match=r"; or plan without it by --train-images and --classes\.$"):
        facts_of(data.model_copy(update={"train": "train[:10%]"}), None, None)


def test_a_set_that_is_here_is_asked(tmp_path):
    assert facts_of(Data(dir=tmp_path), None, None) == DataFacts(1442, 10, 1)  # the digits prepare themselves
    assert facts_of(Data(name="folder:nowhere"), 7, 3) == DataFacts(7, 3, 3)
