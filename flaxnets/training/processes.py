"""Several processes that train one network: how they meet, agree on something, and end when one of them is lost."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxnets.config import Distributed
from flaxnets.errors import ConfigError, FlaxnetsError, ProcessError

LOST_AFTER = 30  # seconds without a sign of life after which a process counts as lost
MEET_WITHIN = 300  # seconds in which all must have started
LONGEST_TEXT = 16_384  # bytes
SAY_WITHIN = 1  # second in which the others print an error that all have found


def meet(given: Distributed) -> None:
    """Join the other processes, if there are any; to be called before any device is used.

    They are given, or found by JAX from the variables of SLURM, Open MPI, Kubernetes or a TPU pod.

    Raises:
      ConfigError: only a part of `given`.
      ProcessError: the others did not come.
    """
    values = (given.coordinator, given.num_processes, given.process_id)
    if any(value is not None for value in values) and None in values:
        raise ConfigError(
            "One of several processes needs all of --distributed.coordinator HOST:PORT, --distributed.num-processes "
            "and --distributed.process-id; give the others, or none to have them found."
        )
    if given.num_processes and not 0 <= (given.process_id or 0) < given.num_processes:
        raise ConfigError(
            f"There is no process {given.process_id} of {given.num_processes}; --distributed.process-id counts from 0."
        )
    if None in values and _is_alone():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which is for `StopRequest`
    try:
        jax.distributed.initialize(
            *values,
            cluster_detection_method=None if None in values else "deactivate",
            initialization_timeout=MEET_WITHIN,
            heartbeat_timeout_seconds=LOST_AFTER,
            shutdown_timeout_seconds=LOST_AFTER,
        )
    except RuntimeError as error:
        if None in values and "must be called before" in str(error):
            return  # a program that has used the devices on its own
        reason = str(error).strip().split("\n")[0]
        raise ProcessError(
            f"The processes did not meet at {given.coordinator or 'the coordinator'} ({reason}); start all of them "
            f"within {MEET_WITHIN} s, with the same address of the first."
        ) from error
    except ValueError as error:
        if "coordinator_address" not in str(error):  # else JAX has found no cluster
            raise


def alone() -> bool:
    """Whether there are no other processes."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any of the processes; all of them have to ask."""
    if alone():
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def from_first(decide: Callable[[], str]) -> str:
    """What `decide` returns in the first process, which alone calls it; all of them have to ask.

    Raises:
      FlaxnetsError: in all of them, where `decide` raises one.
    """
    if alone():
        return decide()
    said, error = "", None
    if is_first():
        try:
            said = "decided " + decide()
        except FlaxnetsError as raised:
            said, error = f"refused {raised}", raised
    padded = np.frombuffer(said.encode()[:LONGEST_TEXT].ljust(LONGEST_TEXT, b"\0"), np.uint8)
    said = bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b"\0").decode(errors="ignore")
    outcome, _, text = said.partition(" ")
    if outcome == "refused":
        raise error or FlaxnetsError(text)
    return text


def is_first() -> bool:
    """Whether this is the process that writes what is written once: logs, run.json, the screen."""
    return jax.process_index() == 0


def leave(error: BaseException) -> NoReturn:
    """End this one of several processes because of an error, without the farewells that wait for the others.

    The others notice at once: their connection breaks, or JAX's coordination service ends them.
    """
    code = 1
    if isinstance(error, FlaxnetsError):
        print(f"Error: {error}", file=sys.stderr)
        code = 2
    elif isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):  # that one's are ValueErrors
        reason = str(error).strip().split("\n")[0]
        print(
            f"Error: Process {jax.process_index()} of {jax.process_count()} lost touch with the others ({reason}). "
            "One of them has ended or cannot be reached: see what it said, and start all again with --resume.",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 2 and is_first():  # JAX aborts the others, with a stack trace, as soon as the first is gone
        time.sleep(SAY_WITHIN)
    os._exit(code)


def _is_alone() -> bool:
    """Whether the variables of a cluster speak of one process only, or of none that JAX could number.

    JAX would then try to meet nobody, at a port that another run may have, or fail in a pod that belongs to no job.
    """
    single = any(os.environ.get(name) == "1" for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    numbered = any(name in os.environ for name in ("JOB_COMPLETION_INDEX", "TPU_WORKER_ID"))
    return single or ("KUBERNETES_SERVICE_HOST" in os.environ and not numbered)
