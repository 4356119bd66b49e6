"""What runs of several seeds say: seeds, means with their spread, and differences between runs of the same seed."""

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metassl_tf.errors import UserError, near_match

_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """Reads the value of `--seeds`: integers, and ranges that include both ends.

    Args:
      texts: such as `["0", "1", "2"]` or `["0..19"]`.

    Returns:
      Each seed once, in the order given.

    Raises:
      UserError: something else.
    """
    try:
        parts = [_seeds(text) for text in texts]
    except ValueError:
        raise UserError(
            f"--seeds={','.join(texts)} is not a list of integers. Expected for example --seeds=0,1,2 or --seeds=0..19."
        ) from None
    return list(dict.fromkeys(itertools.chain(*parts)))


def _seeds(text: str) -> range:
    found = _RANGE.fullmatch(text)
    first, last = map(int, found.groups()) if found else (int(text), int(text))
    if last < first:
        raise ValueError
    return range(first, last + 1)


def choose(given: Sequence[str], known: Sequence[str], *, flag: str, what: str) -> list[str]:
    """Returns the names that a flag gives, or all where it gives none.

    Args:
      given: value of the flag.
      known: every name.
      flag: name of the flag, for the message.
      what: what a name stands for, for the message, such as `a group`.

    Raises:
      UserError: a name that is not known.
    """
    for name in given:
        if name not in known:
            raise UserError(
                f"--{flag}={name} is not {what}. Expected some of: {', '.join(known)}.{near_match(name, list(known))}"
            )
    return [name for name in known if name in given] or list(known)


def with_spread(values: Sequence[float], *, decimals: int = 2, sign: bool = False) -> str:
    """Writes mean ± sample standard deviation (divisor n - 1; left out for one value); `sign` also of means above 0."""
    spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{'+' if sign else ''}.{decimals}f}{spread}"


def summary(values: Sequence[float]) -> dict[str, Any]:
    """What is stored of values: `mean`, `std` (divisor n - 1; None for one value) and their number `n`."""
    std = round(statistics.stdev(values), 6) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 6), "std": std, "n": len(values)}


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours less theirs for every seed that both have, in the order of the seeds.

    Runs of one seed share labeled, validation and test examples: much of what differs between seeds cancels.
    """
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def better_of(values: Sequence[float]) -> str:
    """How many of the differences are above zero, such as `17 of 20`."""
    return f"{sum(value > 0 for value in values)} of {len(values)}"
