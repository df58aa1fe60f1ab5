"""Trees as vectors: what is packed comes back, whole or by part."""

import json

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets.weights.checksums import by_path
from flaxnets.weights.packing import layout, pack, unpack

ARRAYS = st.builds(
    lambda shape, dtype, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(["float32", "int32", "uint32"]),
    st.integers(0, 99),
)


def folders(names, contents):
    return st.dictionaries(names, contents, min_size=1, max_size=12)


KINDS_OF_NAMES = st.sampled_from([st.sampled_from(["kernel", "bias", "scale"]), st.integers(0, 20)])
TREES = KINDS_OF_NAMES.flatmap(lambda names: ARRAYS | folders(names, ARRAYS | folders(names, ARRAYS)))


@settings(max_examples=15)
@given(tree=st.dictionaries(st.sampled_from(["params", "step", "average"]), TREES, min_size=1))
def test_what_is_packed_comes_back_whole_or_by_part(tree):
    described = json.loads(json.dumps(layout(tree)))  # which is how a checkpoint keeps it
    vectors = jax.jit(pack)(tree)
    assert sum(len(vectors[part]) for part in tree) == len({(path.split("/")[0], kind) for path, kind, _ in described})
    for parts in (tree.keys(), [min(tree)]):
        found = unpack({part: vectors[part] for part in parts}, described)
        expected = by_path({part: tree[part] for part in parts})
        assert found.keys() == expected.keys()
        for path, array in expected.items():
            assert found[path].dtype == array.dtype
            np.testing.assert_array_equal(found[path], array, err_msg=path)
