"""`python -m flaxnets.run` trains: wires configuration, registry, data and training core together."""

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from flaxnets.config import Run, settings
from flaxnets.errors import DivergenceError
from flaxnets.part import in_steps


def train(run: Run, command: list[str]) -> int:
    """Carry out a run and return the exit code: 0, or 128 + the number of the signal that stopped it.

    Args:
      run: what to train.
      command: the command that asked for it, repeated in the message that says how to resume.

    Raises:
      FlaxnetsError: anything that the user can mend.
    """
    started = time.perf_counter()
    import jax

    from flaxnets import models, registry
    from flaxnets.data import images, pipeline
    from flaxnets.training import (
        display,
        loop,
        losses,
        mesh,
        mixing,
        optimizer,
        parts,
        plan,
        programs,
        schedules,
        signals,
        state,
        step,
    )
    from flaxnets.training.checkpoint import Checkpoints
    from flaxnets.training.folder import choose_folder, create_folder
    from flaxnets.training.log import MetricsLog
    from flaxnets.training.memory import keep_freed_memory
    from flaxnets.training.skips import Skips

    keep_freed_memory()
    display.show_warnings()
    registry.get(run.arch)
    run, statistics_of_weights = images.decide_input(run)
    devices = mesh.data_mesh(run.data.batch_size)
    mesh.require_equal_parts(run.data.batch_size // devices.size, run.accumulate)
    mix = mixing.mixing_of(run.augmentation, run.data.batch_size // devices.size)
    run_folder = choose_folder(run)
    cache = None if run.dry_run else programs.use_compilation_cache(run.compilation_cache)
    code = programs.loaded_files()
    data = images.open_images(run.data, run.augmentation, run.seed, statistics_of_weights)
    loaded_for_data = programs.loaded_files()  # more where the data set has to be prepared: no part of the step

    steps_per_epoch = data.train_count / run.data.batch_size
    total_steps = run.steps or max(1, round(run.epochs * steps_per_epoch))
    lengths = {"steps_per_epoch": steps_per_epoch, "batch_size": run.data.batch_size}
    peak = schedules.scaled_peak(run.optimizer, run.data.batch_size)
    rate = schedules.learning_rate(run.schedule, peak, total_steps=total_steps, **lengths)
    update = optimizer.make_optimizer(run.optimizer, rate)

    making = {"dtype": jax.numpy.dtype(run.dtype), **run.options}
    abstract = models.abstract(run.arch, len(data.class_names), data.channels, **making)
    code |= programs.loaded_files() - loaded_for_data
    frozen = parts.frozen_parts(abstract, run.freeze)
    definition, params, batch_stats = state.split_model(
        abstract, batch_norm=run.batch_norm, frozen=frozen, rematerialise=run.rematerialise
    )
    num_params = sum(parameter.size for parameter in jax.tree.leaves(params))

    facts = {"class_names": data.class_names, "mean": data.mean, "std": data.std, "num_params": num_params}
    constants = {**settings(run), **facts, "total_steps": total_steps, **lengths}
    del constants["seed"]  # a part of the state
    statistics = {"mean": data.mean, "std": data.std}
    train_step = step.make_train_step(
        definition,
        update,
        rate=rate,
        **statistics,
        loss=losses.LOSSES[run.loss],
        label_smoothing=run.label_smoothing,
        mixing=mix,
        frozen=frozen,
        accumulate=run.accumulate,
        average=run.ema,
    )
    eval_step = step.make_eval_step(definition, **statistics)
    kept = {"cache": cache, "code": code}
    train_program = programs.Program(
        mesh.data_parallel(train_step, devices), donate_state=True, settings={"train": constants}, **kept
    )
    eval_program = programs.Program(
        mesh.data_parallel(eval_step, devices), donate_state=False, settings={"evaluate": constants}, **kept
    )

    def first_state(params: dict, batch_stats: dict) -> state.TrainState:
        return state.initial_state(params, batch_stats, update, run.seed, frozen=frozen, keep_average=run.ema > 0)

    if run.dry_run:
        shapes = jax.eval_shape(first_state, params, batch_stats)
        image = data.batch["image"]
        part = jax.ShapeDtypeStruct((image.shape[0] // devices.size, *image.shape[1:]), image.dtype)
        memory = plan.memory(definition, shapes, part, frozen=frozen, accumulate=run.accumulate)
        shown = display.Display(total_steps, started)
        shown.summary(plan.rows(run, data, shapes, memory, frozen=frozen, total_steps=total_steps))
        shown.say("\n".join(plan.plot(rate, total_steps)))
        return 0

    def batches(start: int) -> Iterator[dict]:
        return pipeline.on_devices(data.train, mesh.split(devices), start, run.data.workers)

    def tested(now: state.TrainState) -> dict[str, float]:
        test_batches = pipeline.on_devices(data.test, mesh.split(devices), workers=run.data.workers)
        return loop.evaluate(eval_program, now, test_batches)

    def evaluation(now: state.TrainState) -> dict[str, float]:
        found = tested(now)
        average = tested(now.averaged()) if run.ema else {}
        return found | {f"ema_{name}": average[name] for name in ("loss", "accuracy") if average}

    with display.Display(total_steps, started) as shown:
        kind = jax.devices()[0].device_kind
        shown.say(
            f"{run.arch}, {num_params:,} parameters, on {run.data.name}: {data.train_count:,} training and "
            f"{data.test_count:,} test images, {len(data.class_names)} classes; {jax.device_count()} x {kind}"
        )
        with ThreadPoolExecutor(1) as background:  # compiling and drawing initial values keep a core busy each
            state_shapes = mesh.shapes(jax.eval_shape(first_state, params, batch_stats), mesh.copied(devices))
            batch_shapes = mesh.shapes(data.batch, mesh.split(devices))
            compiling = background.submit(train_program.compile, state_shapes, batch_shapes)
            model = models.create(run.arch, len(data.class_names), data.channels, run.weights, seed=run.seed, **making)
            _, params, batch_stats = state.split_model(model)
            del model  # the first step gives its arrays away
            now = jax.device_put(jax.jit(first_state)(params, batch_stats), mesh.copied(devices))
            compiling.result()
        if not run.resume:
            create_folder(run_folder, run, facts)
        with (
            contextlib.closing(Checkpoints(run_folder / "checkpoints", run.keep)) as checkpoints,
            signals.StopRequest() as stop,
        ):
            if run.resume:
                now = checkpoints.restore_latest(now)
            first = int(now.step) + 1
            shown.say(f"steps {first} to {total_steps}, in {run_folder}")
            try:
                with contextlib.closing(MetricsLog(run_folder, start=first - 1)) as log:
                    skips = Skips(run.non_finite, lambda step: data.train.indices(step - 1), log)
                    now = loop.fit(
                        now,
                        total_steps=total_steps,
                        steps_per_epoch=steps_per_epoch,
                        train_step=train_program,
                        evaluation=evaluation,
                        batches=batches,
                        log_due=loop.Every(max(1, in_steps(run.log_every, **lengths)), total_steps),
                        evaluation_due=loop.Every(max(1, in_steps(run.evaluate_every, **lengths)), total_steps),
                        meter=loop.Meter(run.data.batch_size, skips),
                        checkpoints=checkpoints,
                        log=log,
                        display=shown,
                        stop=stop,
                    )
            except DivergenceError as error:
                newest = checkpoints.newest()
                kept = (
                    "no checkpoint was written before" if newest is None else f"the checkpoint of step {newest} is good"
                )
                raise DivergenceError(
                    f"{error}; {kept}. Start anew under another --name with a lower --optimizer.peak-lr or a longer "
                    "--schedule.warmup."
                ) from error
            best = checkpoints.best()
            if stop.signal:
                named = [] if run.name else ["--name", run_folder.name]
                resumed = shlex.join([*command, *named, *([] if run.resume else ["--resume"])])
                shown.say(
                    f"Stopped by {stop.signal.name} after step {int(now.step)}, which is saved. Resume by: {resumed}"
                )
            else:
                shown.summary(
                    {
                        "best test accuracy": f"{best[1]:.2%} (step {best[0]})" if best else "not measured",
                        "steps": f"{int(now.step)}",
                        "time": f"{time.perf_counter() - started:.0f} s",
                        "run folder": str(run_folder),
                    }
                )
    return stop.exit_code


if __name__ == "__main__":
    from flaxnets.cli import main

    sys.exit(main(["train", *sys.argv[1:]], command=["python", "-m", "flaxnets.run"]))
