"""What do extremely randomised trees say of some rows? scikit-learn's, without the costs of its forest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tree_predictions(
    rows: NDArray[np.float32],
    targets: NDArray[np.float64],
    asked: NDArray[np.float32],
    *,
    num_trees: int,
    most_rows: int,
    seed: int,
) -> NDArray[np.float64]:
    """What each tree of an ensemble on bootstrap samples predicts, (T, N).

    The trees are those of `ExtraTreesRegressor(num_trees, bootstrap=True, random_state=seed)`, whose copying and
    checking of estimators took longer than the growing of small trees.

    Args:
        rows: what they learn from, (S, F).
        targets: of the same, (S,).
        asked: (N, F).
        most_rows: the size of a bootstrap sample where there are more rows.

    Source: Geurts et al., Extremely Randomized Trees, 2006, doi:10.1007/s10994-006-6226-1.
    """
    # They take a second to import, and only this sampler needs them.
    from sklearn import config_context
    from sklearn.tree import ExtraTreeRegressor

    # One, seeded anew: making one takes sixty times as long.
    state = np.random.RandomState(seed)
    seeds = [state.randint(np.iinfo(np.int32).max) for _ in range(num_trees)]
    said = np.empty((num_trees, len(asked)))
    rows, targets = np.ascontiguousarray(rows), np.ascontiguousarray(targets).reshape(-1, 1)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for index, each in enumerate(seeds):
            state.seed(each)
            drawn = state.randint(0, len(rows), min(len(rows), most_rows), dtype=np.int32)
            state.seed(each)
            tree = ExtraTreeRegressor(random_state=state)
            if len(rows) > most_rows:
                tree.fit(rows[drawn], targets[drawn], check_input=False)
            else:
                weights = np.bincount(drawn, minlength=len(rows)).astype(np.float64)
                tree.fit(rows, targets, sample_weight=weights, check_input=False)
            said[index] = tree.tree_.predict(asked)[:, 0]
    return said
