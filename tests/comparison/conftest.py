"""Finished runs on the same test images, made of one evaluation with changed predictions."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from hilum.evaluation import evaluate


@pytest.fixture(scope="session")
def evaluated(make_sites, write_own_test):
    """A run with the evaluation of its own test and a history."""
    run = make_sites().run
    write_own_test(evaluate.evaluate(evaluate.subject(run), replicates=100), run / "evaluation")
    (run / "history.csv").write_text(
        "epoch,train_loss,val_loss,val_auroc,learning_rate,seconds\n1,0.9,0.8,0.7,0.001,5\n2,0.5,0.6,0.8,0.001,5\n"
    )
    return run


@pytest.fixture
def make_run(evaluated, tmp_path):
    """Copies the run under a name; noise upon the logits of its stored predictions makes another model of it."""

    def make(name, *, noise=0.0, keep=slice(None)):
        run = tmp_path / name
        shutil.copytree(evaluated, run)
        path = run / "evaluation" / "predictions.parquet"
        frame = pd.read_parquet(path)
        logits = frame["logit"] + noise * np.random.default_rng(len(name)).normal(size=len(frame))
        frame = frame.assign(logit=logits, probability=1 / (1 + np.exp(-logits))).iloc[keep]
        frame.to_parquet(path)
        return run

    return make


@pytest.fixture
def edit_metrics():
    """Changes what a run's evaluation says of itself."""

    def edit(run, **changes):
        path = run / "evaluation" / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit
