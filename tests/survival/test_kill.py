"""SIGKILL at random moments: resumed, a run ends as the undisturbed one, to the last bit, and keeps what it saved."""

import time

import numpy as np
from started import saved_steps
from states import final_state

from flaxnets.training.log import read_metrics

KILLS = 20
OPTIONS = ["--steps", 300, "--evaluate-every", "5 steps", "--data.holdout", 0.01, "--keep", 2]  # a save every 5 steps


def test_twenty_kills_change_nothing(start, folder):
    undisturbed = folder.with_name("undisturbed")
    start(*OPTIONS, "--name", "undisturbed").end()
    random = np.random.default_rng(0)
    saved = in_mid_save = 0
    for kill in range(KILLS):
        run = start(*OPTIONS, "--name", "run", *(["--resume"] if kill else []))
        if kill % 2:  # in a save
            run.wait_for(lambda: list(folder.glob("checkpoints/*-tmp*")))
            time.sleep(random.uniform(0, 0.02))
        else:
            run.wait_for("is saved")
            time.sleep(random.uniform(0, 0.2))
        run.kill()
        left = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]
        in_mid_save += bool(list(folder.glob("checkpoints/*-tmp*")))
        saved = max([saved, *saved_steps(run.stdout)])
        assert max([0, *left]) >= saved
    assert 0 < saved < 300
    assert in_mid_save >= 5
    start(*OPTIONS, "--name", "run", "--resume").end()
    (step, state), (expected_step, expected) = final_state(folder), final_state(undisturbed)
    assert step == expected_step == 300
    assert state.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
    tested, expected_tested = (
        [(line["step"], line["loss"]) for line in read_metrics(of) if line["split"] == "test"]
        for of in (folder, undisturbed)
    )
    assert tested == expected_tested
