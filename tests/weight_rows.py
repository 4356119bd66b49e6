"""Writes into a table of weights what a test wants there."""

import numpy as np
import numpy.typing as npt

from metassl_tf.meta.weight_table import WeightTable

_COLUMNS = {"weight": 0, "updates": 3, "latest_influence": 4}


def assign(table: WeightTable, **columns: npt.ArrayLike) -> None:
    """Replaces columns, under the names that `WeightTable.columns` has for them, and leaves the others alone."""
    rows = table.state_variables[0]
    values = rows.numpy()
    for name, column in columns.items():
        values[:, _COLUMNS[name]] = np.asarray(column, np.float32)
    rows.assign(values)
