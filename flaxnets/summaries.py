"""What a model costs, layer by layer: found by tracing it with shapes alone, so nothing is computed or allocated."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
from flax import nnx

from flaxnets import models, registry
from flaxnets.errors import ArchitectureError
from flaxnets.trace import Trace


class Row(NamedTuple):
    """One layer of a summary.

    Attributes:
      path: where the layer is in the model, such as `stages.0.1.first.norm`; empty for the model itself.
      kind: its class.
      output_shape: of the whole batch.
      params: trainable parameters of the layer itself, not of layers inside it.
      macs: multiply-adds of its convolutions and matrix products with parameters, for one image.
      receptive_field, stride: height or width in pixels of the image, whichever is larger, that a pixel of the output
        sees, and the distance between two such pixels; None where the output is no feature map.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: int | None
    stride: int | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a model costs; see `Row` for the units.

    Attributes:
      name: of the architecture, or of the model's class.
      input_shape: images, [batch, height, width, channels].
      rows: layers in the order in which they are first called. Those with layers inside only where they also compute or
        hold something themselves.
      params, batch_stats: trainable parameters, and running averages beside them.
      macs: multiply-adds for one image, of convolutions and linear layers.
      receptive_field, stride: of the last feature map, by RF_n = RF_(n-1) + (k - 1) * S_(n-1), the largest over
        parallel branches. Means over a whole feature map, as in squeeze-excite, do not count.
      input_bytes, param_bytes, activation_bytes: memory of the batch of images, of parameters and running averages,
        and of the outputs of all rows.
    """

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    params: int
    batch_stats: int
    macs: int
    receptive_field: int
    stride: int
    input_bytes: int
    param_bytes: int
    activation_bytes: int


def summary(
    name_or_model: str | nnx.Module,
    image_size: int | tuple[int, int] | None = None,
    batch: int = 1,
    *,
    in_channels: int | None = None,
    **options: Any,
) -> Summary:
    """Parameters, multiply-adds, receptive field and memory of a model in inference mode, in total and by layer.

    Args:
      name_or_model: a registered architecture, or any module that maps images [b, h, w, c], or vectors [b, c], to an
        array; its variables may be shapes only.
      image_size: height and width in pixels; if None those of the architecture, or 224.
      batch: number of images.
      in_channels: channels per image; if None 3 for an architecture, what the first layer takes for a module.
      options: for an architecture, as in `create`: `num_classes` and what else it takes, such as `width=0.5`.

    Raises:
      ArchitectureError: there is no such architecture or option, or the model cannot take such images.

    >>> summary("resnet50").params
    25557032
    """
    if isinstance(name_or_model, str):
        name = name_or_model
        image_size = registry.get(name).image_size if image_size is None else image_size
        channels = 3 if in_channels is None else in_channels
        model = models.abstract(name, in_channels=channels, **options)
    else:
        name = type(name_or_model).__name__
        model = models.in_mode(name_or_model, training=False)
        channels = _input_channels(model) if in_channels is None else in_channels
    image_size = 224 if image_size is None else image_size
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    if min(height, width, batch, channels) < 1:
        raise ArchitectureError("The image size, the batch and the channels cannot be less than 1; give larger ones.")
    shape = (batch, channels) if isinstance(model, nnx.Linear) else (batch, height, width, channels)
    return _summarise(name, model, shape)


def _summarise(name: str, model: nnx.Module, input_shape: tuple[int, ...]) -> Summary:
    trace = Trace(model, input_shape)
    called = {trace.paths[layer]: layer for layer in trace.outputs}
    parents = {path[:end] for path in called for end in range(len(path))}
    params = dict.fromkeys(trace.outputs, 0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        # It counts for the innermost layer that was called.
        owner = next(path[:end] for end in reversed(range(len(path))) if path[:end] in called)
        params[called[owner]] += variable.size
    rows, activation_bytes = [], 0
    for layer, output in trace.outputs.items():
        path, costs = trace.paths[layer], trace.costs[layer]
        if output.size == 0:
            raise ArchitectureError(
                f"Nothing is left of an input of shape {input_shape} after {trace.kinds[layer]} "
                f"{'.'.join(map(str, path))}; give a larger image_size."
            )
        if path in parents and not params[layer] and not any(cost.macs or cost.is_window for cost in costs):
            continue
        is_map = bool(costs) and len(output.shape) == len(input_shape) > 2
        row = Row(
            path=".".join(map(str, path)),
            kind=trace.kinds[layer],
            output_shape=output.shape,
            params=params[layer],
            macs=sum(cost.macs for cost in costs) // input_shape[0],
            receptive_field=max(costs[-1].reach.field) if is_map else None,
            stride=max(costs[-1].reach.stride) if is_map else None,
        )
        rows.append(row)
        activation_bytes += output.size * output.dtype.itemsize
    variables = jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return Summary(
        name=name,
        input_shape=input_shape,
        rows=tuple(rows),
        params=sum(params.values()),
        batch_stats=sum(array.size for array in variables) - sum(params.values()),
        macs=sum(cost.macs for costs in trace.costs.values() for cost in costs) // input_shape[0],
        receptive_field=max((1, *trace.reach.field)),
        stride=max((1, *trace.reach.stride)),
        input_bytes=math.prod(input_shape) * 4,
        param_bytes=sum(array.size * array.dtype.itemsize for array in variables),
        activation_bytes=activation_bytes,
    )


def _input_channels(model: nnx.Module) -> int:
    """What the first layer takes, as far as it says so."""
    for _, module in nnx.iter_modules(getattr(model, "stem", model)):
        for attribute in ("in_channels", "in_features", "num_features"):
            if isinstance(channels := getattr(module, attribute, None), int):
                return channels
    return 3
