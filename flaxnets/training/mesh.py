"""The devices as one axis, along which batches are split and the state is copied."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from flaxnets.errors import ConfigError

AXIS = "data"


def data_mesh(batch_size: int) -> Mesh:
    """All devices along the axis `data`. Raises ConfigError where they cannot share a batch evenly."""
    devices = jax.device_count()
    require_even_split(batch_size, devices)
    return jax.make_mesh((devices,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def require_even_split(batch_size: int, devices: int) -> None:
    """Raise ConfigError where so many devices cannot share a batch evenly."""
    if batch_size % devices:
        nearest = {max(1, batch_size // devices) * devices, (batch_size // devices + 1) * devices}
        choices = " or ".join(map(str, sorted(nearest)))
        raise ConfigError(
            f"A batch of {batch_size} images cannot be split evenly over {devices} devices; "
            f"use --data.batch-size {choices}."
        )


def require_equal_parts(batch_size: int, accumulate: int) -> None:
    """Raise ConfigError where a device's batch cannot be computed in so many equal parts."""
    if batch_size % accumulate:
        raise ConfigError(
            f"A device's batch of {batch_size} images cannot be computed in {accumulate} equal parts; use an "
            f"--accumulate that divides {batch_size}."
        )


def split(mesh: Mesh) -> NamedSharding:
    """How a batch lies: an equal part of it on each device."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def copied(mesh: Mesh) -> NamedSharding:
    """How the state lies: all of it on each device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, sharding: NamedSharding) -> Any:
    """A tree of arrays, the same in all processes, as arrays that lie on all devices as `sharding` says."""

    def placed(leaf: jax.Array) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), leaf.shape)

    return jax.tree.map(placed, tree)


def shapes(tree: Any, sharding: Sharding) -> Any:
    """A tree of arrays, or of their shapes, as shapes that lie on the devices as `sharding` says."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def data_parallel(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`function(state, batch)`, written for one device with collectives over `data`, jitted for all devices.

    This is `jax.pmap`'s model, without its stacked arrays: state and results are copied, batches are split. The check
    of varying axes stays off, because with it `pmean` of a gradient would count every device once more.
    """
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return jax.jit(mapped)


def mean_over_devices(tree: Any) -> Any:
    """The mean of each array over all devices, in a function that `data_parallel` runs; vectors travel as one array.

    XLA joins no more than 256 arrays into one all-reduce on a TPU. ResNet-50 has 270 with its batch statistics, most of
    them vectors of a batch norm.
    """
    if lax.axis_size(AXIS) == 1:  # a CPU would copy all arrays
        return tree
    leaves, structure = jax.tree.flatten(tree)
    vectors = [number for number, leaf in enumerate(leaves) if leaf.ndim == 1 and leaf.dtype == jnp.float32]
    if not vectors:
        return lax.pmean(tree, AXIS)
    joined, others = jnp.concatenate([leaves[number] for number in vectors]), dict(enumerate(leaves))
    ends = np.cumsum([others.pop(number).size for number in vectors])
    joined, others = lax.pmean((joined, others), AXIS)
    means = others | dict(zip(vectors, jnp.split(joined, ends[:-1]), strict=True))
    return jax.tree.unflatten(structure, [means[number] for number in range(len(leaves))])
