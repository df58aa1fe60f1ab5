"""`flaxnets plan`: what a run needs, and how fast it could be, on TPUs that are not there or on simulated devices."""

import argparse
import json
import sys

from flaxnets.config import Run, parse_run
from flaxnets.errors import ConfigError
from flaxnets.planning import topologies


def main(options: list[str], description: str) -> int:
    """Carry out the command and return its exit code. Raises FlaxnetsError for whatever the user can mend."""
    parser = argparse.ArgumentParser(
        prog="flaxnets plan",
        description=description,
        epilog="All options of `flaxnets train`, such as --experiment and --dtype, describe the run.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--topology", nargs="+", required=True, metavar="NAME", help="devices: v5e:4x4, v5p:2x2x1, v6e:2x4, cpu:8, ..."
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--batch-size", nargs="+", type=int, metavar="N", help="images a step over all devices; default: as the run's"
    )
    sizes.add_argument("--batch-per-device", nargs="+", type=int, metavar="N", help="images a step on each device")
    parser.add_argument("--suggest", action="store_true", help="compile it with changes too, and say what they bring")
    parser.add_argument("--train-images", type=int, metavar="N", help="where the data set is not here: its images,")
    parser.add_argument("--classes", type=int, metavar="N", help="and its classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments, others = parser.parse_known_args(options)
    for name in ("batch_size", "batch_per_device", "train_images", "classes"):
        given = getattr(arguments, name)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number < 1:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} cannot be {number}; give a whole number above 0.")
    chosen = [topologies.parse(text) for text in arguments.topology]
    run = parse_run(others)
    topologies.simulate(max([each.chips for each in chosen if each.kind == "cpu"], default=1))

    from flaxnets.data.images import decide_input
    from flaxnets.planning.costs import StepCosts
    from flaxnets.planning.data_facts import facts_of
    from flaxnets.planning.plan import Planner
    from flaxnets.tools import plan_text
    from flaxnets.training.display import show_warnings
    from flaxnets.training.programs import cache_folder

    show_warnings()
    run, _ = decide_input(run)
    facts = facts_of(run.data, arguments.train_images, arguments.classes)
    cache = cache_folder(run.compilation_cache)  # JAX's own cache cannot read programs for devices that are not there
    planner = Planner(StepCosts(facts, cache, lambda text: print(text, file=sys.stderr, flush=True)))
    plans = []
    for topology in chosen:
        devices = len(topologies.devices_of(topology))
        batches = arguments.batch_size or [run.data.batch_size]
        batches = [devices * part for part in arguments.batch_per_device or []] or batches
        plans += [planner.plan(_with_batch(run, batch), topology) for batch in batches]
    if len(plans) == 1 and plans[0].problem:
        raise ConfigError(plans[0].problem)
    tried = [planner.suggestions(plan) if arguments.suggest and not plan.problem else {} for plan in plans]
    if arguments.json:
        found = [
            {**plan.as_json(), "suggestions": {option: other.as_json() for option, other in changes.items()}}
            for plan, changes in zip(plans, tried, strict=True)
        ]
        print(json.dumps(found, indent=2))
    else:
        plan_text.show(plans, tried, facts)
    return 0


def _with_batch(run: Run, batch_size: int) -> Run:
    return run.model_copy(update={"data": run.data.model_copy(update={"batch_size": batch_size})})
