"""`python -m flaxnets.run` trains: wires configuration, registry, data and training core together."""

from flaxnets.training.memory import keep_freed_memory, running_out

if __name__ == "__main__":
    keep_freed_memory()  # may start the process anew, so before what takes time

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flaxnets.config import Run, settings
from flaxnets.errors import DivergenceError
from flaxnets.part import in_steps
from flaxnets.training.signals import StopRequest

SHOWN_IMAGES = 8


def train(run: Run, command: list[str]) -> int:
    """Carry out a run and return the exit code: 0, or 128 + the number of the signal that stopped it.

    Args:
      run: what to train.
      command: the command that asked for it, repeated in the message that says how to resume.

    Raises:
      FlaxnetsError: anything that the user can mend.
    """
    started = time.perf_counter()
    with StopRequest() as stop:
        try:
            with running_out("lower --data.batch-size, or raise --accumulate, or give --rematerialise"):
                return _train(run, command, started, stop)
        except Exception as error:
            from flaxnets.training import processes

            if not processes.alone():
                processes.leave(error)
            raise


def _train(run: Run, command: list[str], started: float, stop: StopRequest) -> int:
    import jax

    from flaxnets import models, registry
    from flaxnets.data import images, pipeline
    from flaxnets.training import computation, display, dry_run, loop, mesh, mixing, processes, programs, state
    from flaxnets.training import folder as folders
    from flaxnets.training.checkpoint import Checkpoints
    from flaxnets.training.log import MetricsLog
    from flaxnets.training.skips import Skips

    display.show_warnings()
    registry.get(run.arch)
    processes.meet(run.distributed)
    run, statistics = images.decide_input(run)
    devices = mesh.data_mesh(run.data.batch_size)
    mesh.require_equal_parts(run.data.batch_size // devices.size, run.accumulate)
    mix = mixing.mixing_of(run.augmentation, run.data.batch_size // devices.size)
    run_folder = Path(processes.from_first(lambda: str(folders.choose_folder(run))))
    if run.resume:
        statistics = folders.statistics_of(run_folder)
    cache = None if run.dry_run else programs.use_compilation_cache(run.compilation_cache)
    code = programs.loaded_files()
    data = images.open_images(run.data, run.augmentation, run.seed, statistics)
    loaded_for_data = programs.loaded_files()  # more where the data set has to be prepared: no part of the step

    computed = computation.computation_of(
        run,
        mix,
        train_count=data.train_count,
        num_classes=len(data.class_names),
        channels=data.channels,
        mean=data.mean,
        std=data.std,
    )
    code |= programs.loaded_files() - loaded_for_data
    num_params, total_steps = computed.num_params, computed.total_steps
    lengths = {"steps_per_epoch": computed.steps_per_epoch, "batch_size": run.data.batch_size}

    facts = {"class_names": data.class_names, "mean": data.mean, "std": data.std, "num_params": num_params}
    constants = {**settings(run), **facts, "total_steps": total_steps, **lengths}
    facts |= {"train_count": data.train_count, "test_count": data.test_count}
    del constants["seed"]  # a part of the state
    kept = {"cache": cache, "code": code}
    train_program = programs.Program(
        mesh.data_parallel(computed.train_step, devices), donate_state=True, settings={"train": constants}, **kept
    )
    eval_program = programs.Program(
        mesh.data_parallel(computed.eval_step, devices), donate_state=False, settings={"evaluate": constants}, **kept
    )

    if run.dry_run:
        shapes = computed.state_shapes()
        image = data.batch["image"]
        part = jax.ShapeDtypeStruct((image.shape[0] // devices.size, *image.shape[1:]), image.dtype)
        memory = dry_run.memory(computed.definition, shapes, part, frozen=computed.frozen, accumulate=run.accumulate)
        shown = display.Display(total_steps, started, quiet=not processes.is_first())
        shown.summary(dry_run.rows(run, data, shapes, memory, frozen=computed.frozen, total_steps=total_steps))
        shown.say("\n".join(dry_run.plot(computed.rate, total_steps)))
        return 0

    def batches(start: int) -> Iterator[dict]:
        return pipeline.on_devices(data.train, mesh.split(devices), start, run.data.workers)

    def tested(now: state.TrainState) -> dict[str, float] | None:
        test_batches = pipeline.on_devices(data.test, mesh.split(devices), workers=run.data.workers)
        return loop.evaluate(eval_program, now, test_batches, stop)

    def evaluation(now: state.TrainState) -> dict[str, float] | None:
        found = tested(now)
        average = tested(now.averaged()) if run.ema and found else {}
        if found is None or average is None:
            return None
        return found | {f"ema_{name}": average[name] for name in ("loss", "accuracy") if average}

    with display.Display(total_steps, started, quiet=not processes.is_first()) as shown:
        kind = jax.devices()[0].device_kind
        shown.say(
            f"{run.arch}, {num_params:,} parameters, on {run.data.name}: {data.train_count:,} training and "
            f"{data.test_count:,} test images, {len(data.class_names)} classes; {jax.device_count()} x {kind}"
        )
        undo = contextlib.ExitStack()  # a run that does not begin leaves nothing behind
        lock = contextlib.ExitStack()

        def begin() -> str:
            """What the first process does for all."""
            with stop.undisturbed:
                if run.resume:
                    folders.check_facts(run_folder, facts)
                else:
                    folders.create_folder(run_folder, run, {**facts, "total_steps": total_steps})
                    undo.callback(folders.discard_folder, run_folder)
                    stop.on_early_exit = undo.close
                lock.enter_context(folders.lock_folder(run_folder))
            return ""

        processes.from_first(begin)
        begun = run.resume and any((run_folder / "checkpoints").glob("[0-9]*"))  # and needs its first weights no more
        with undo, ThreadPoolExecutor(1) as background:  # compiling and drawing initial values keep a core busy each
            state_shapes = mesh.shapes(computed.state_shapes(), mesh.copied(devices))
            batch_shapes = mesh.shapes(data.batch, mesh.split(devices))
            compiling = background.submit(train_program.lower(state_shapes, batch_shapes))
            model = models.create(
                run.arch,
                len(data.class_names),
                data.channels,
                None if begun else run.weights,
                seed=run.seed,
                **computed.making,
            )
            _, params, batch_stats = state.split_model(model)
            del model  # the first step gives its arrays away
            now = mesh.place(jax.jit(computed.first_state)(params, batch_stats), mesh.copied(devices))
            compiling.result()
            undo.pop_all()
        checkpoints = Checkpoints(run_folder / "checkpoints", run.keep, lambda step: shown.say(f"step {step} is saved"))
        if run.resume:
            now = checkpoints.restore_latest(now)
        stop.training_starts()
        first = int(now.step) + 1
        left = f"steps {first} to {total_steps}" if first <= total_steps else f"all {total_steps} steps are done"
        shown.say(f"{left}, in {run_folder}")
        log = MetricsLog(run_folder, start=first - 1, writes=processes.is_first())
        if first == 1:
            log.describe(settings(run), data.train[0]["image"][:SHOWN_IMAGES])
        skips = Skips(run.non_finite, lambda step: data.train.indices(step - 1), log)
        try:
            now, stopped = loop.fit(
                now,
                total_steps=total_steps,
                steps_per_epoch=computed.steps_per_epoch,
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
            kept = "no checkpoint was written before" if newest is None else f"the checkpoint of step {newest} is good"
            raise DivergenceError(
                f"{error}; {kept}. Start anew under another --name with a lower --optimizer.peak-lr or a longer "
                "--schedule.warmup."
            ) from error
        best = checkpoints.best()
        checkpoints.close()
        log.close()
        lock.close()
        if stopped and stop.signal:
            named = [] if run.name else ["--name", run_folder.name]
            resumed = shlex.join([*command, *named, *([] if run.resume else ["--resume"])])
            shown.say(f"Stopped by {stop.signal.name} after step {int(now.step)}, which is saved. Resume by: {resumed}")
        else:
            shown.summary(
                {
                    "best test accuracy": f"{best[1]:.2%} (step {best[0]})" if best else "not measured",
                    "steps": f"{int(now.step)}",
                    "time": f"{time.perf_counter() - started:.0f} s",
                    "run folder": str(run_folder),
                }
            )
    return stop.exit_code if stopped else 0


if __name__ == "__main__":
    from flaxnets.cli import main

    sys.exit(main(["train", *sys.argv[1:]], command=["python", "-m", "flaxnets.run"]))
