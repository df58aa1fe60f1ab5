"""my_net meets flaxnets' contract."""

from flaxnets import registry
from flaxnets.testing import check_architecture


def test_my_net_is_a_good_plugin():
    check_architecture(registry.get("my_net"), image_size=32)
