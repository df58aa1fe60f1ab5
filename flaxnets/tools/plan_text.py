"""Plans as text: one in full, or several as a table; then what cannot be, and what would be better."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from flaxnets.planning.costs import Costs
from flaxnets.planning.data_facts import DataFacts
from flaxnets.planning.plan import Plan, size_text

LIMITS = {"operations": "operations", "memory": "memory traffic", "links": "links between chips"}


def show(plans: Sequence[Plan], tried: Sequence[dict[str, Plan]], facts: DataFacts) -> None:
    """Print plans, and for each the plans with one change, by the option that makes it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to wrap at
    run = plans[0].run
    options = "".join(f", {name}={value}" for name, value in run.options.items())
    console.print(
        f"{run.arch}{options}, {run.data.image_size} px, {run.dtype}{', rematerialised' if run.rematerialise else ''}; "
        f"{run.data.name}: {facts.train_count:,} training images, {facts.num_classes} classes",
        markup=False,
    )
    console.print(_table(plans) if len(plans) > 1 else _details(plans[0]))
    for plan in plans:
        if plan.problem:
            console.print(f"{plan.topology.text}: {plan.problem}", markup=False)
    for plan, changes in zip(plans, tried, strict=True):
        for option, other in changes.items():
            console.print(
                f"{plan.topology.text}, {plan.run.data.batch_size} images, with {option}: {_gain(plan, other)}",
                markup=False,
            )
    if any(plan.estimate for plan in plans):
        console.print(
            "Times are a roofline of published peaks, without reading images and evaluations; real runs took 1.6 to 3 "
            "times as long (docs/planning.md).",
            markup=False,
        )


def _details(plan: Plan) -> Table:
    costs, found = plan.costs, plan.estimate
    assert costs, "a plan without costs has a problem"
    table = Table.grid(padding=(0, 2))
    parts = {
        "parameters": costs.params,
        "optimiser": costs.optimizer,
        "averages": costs.averages,
        "batch": costs.batch,
        "activations and the rest": costs.activations,
    }
    rows = {
        "devices": f"{plan.topology.text}: {plan.topology.chips} chips, {plan.devices} devices",
        "batch": f"{plan.run.data.batch_size} images, {plan.batch_per_device:.0f} on each device",
        "length": f"{costs.steps:,} steps, {costs.steps / costs.steps_per_epoch:.4g} epochs",
        "memory a device": f"{size_text(costs.total)}{_of_memory(plan)}: "
        + ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size),
        "work a device": f"{_giga(costs.operations)} G operations, {_giga(costs.bytes_accessed)} GB accessed",
        "collectives": _collectives(costs),
    }
    if found:
        times = f"operations {found.operations * 1e3:.2f} ms, memory {found.memory * 1e3:.2f} ms"
        rows["a step"] = f"{found.step * 1e3:.2f} ms: {times}, links {found.links * 1e3:.2f} ms"
        rows["limit"] = LIMITS[found.limit]
        rows["speed"] = f"{plan.images_per_second:,.0f} images/s"
        rows["duration"] = (
            f"{duration(found.step * costs.steps_per_epoch)} an epoch, {duration(found.step * costs.steps)}"
        )
    else:
        rows["a step"] = "not estimated: nothing is published of a simulated device"
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _table(plans: Sequence[Plan]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("topology", "devices", "batch", "a device", "memory", "G operations", "GB accessed", "collectives")
    for head in (*heads, "images/s", "epoch", "run", "limit"):
        table.add_column(
            head, justify="left" if head in ("topology", "collectives", "limit") else "right", no_wrap=True
        )
    for plan in plans:
        costs, found = plan.costs, plan.estimate
        row = [plan.topology.text, str(plan.devices), str(plan.run.data.batch_size), f"{plan.batch_per_device:g}"]
        if costs:
            row += [size_text(costs.total) + _of_memory(plan)]
        if costs and costs.fits:
            row += [_giga(costs.operations), _giga(costs.bytes_accessed), _collectives(costs)]
        if costs and found:
            row += [f"{plan.images_per_second:,.0f}", duration(found.step * costs.steps_per_epoch)]
            row += [duration(found.step * costs.steps), LIMITS[found.limit]]
        table.add_row(*row, *["-"] * (len(table.columns) - len(row)))
    return table


def _gain(plan: Plan, other: Plan) -> str:
    if other.problem or not other.costs:
        return other.problem or ""
    memory = f"{size_text(other.costs.total)}{_of_memory(other)}"
    if plan.images_per_second and other.images_per_second:
        ratio = other.images_per_second / plan.images_per_second
        return f"{other.images_per_second:,.0f} images/s ({ratio:.2f} times), {memory}"
    return memory


def _of_memory(plan: Plan) -> str:
    return f" of {plan.memory / 2**30:.0f} GiB" if plan.memory else ""


def _collectives(costs: Costs) -> str:
    parts = [f"{each.count} {kind}, {size_text(each.bytes)}" for kind, each in costs.collectives.items()]
    return "; ".join(parts) or "none"


def _giga(number: float) -> str:
    return f"{number / 1e9:,.1f}" if number >= 1e9 else f"{number / 1e9:.3f}"


def duration(seconds: float) -> str:
    """A time in words, such as `12.3 s`, `4.5 min` or `1.2 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
