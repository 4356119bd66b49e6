"""Numbers as people read them."""

from scipy import stats

ABSENT = "–"


def percent(value: float | None, *, digits: int = 2) -> str:
    """0.9723 -> `97.23%`; None, which is a metric that was not measured, -> a dash."""
    return ABSENT if value is None else f"{100 * value:.{digits}f}%"


def number(value: float | None) -> str:
    """Four decimals, or what fits the size: 1470000 -> `1,470,000`, 1.5 -> `1.5000`, 0.00002 -> `2e-05`."""
    if value is None:
        return ABSENT
    size = abs(value)
    if size >= 1000 or size == 0:
        return f"{value:,.0f}"
    return f"{value:.4f}" if 0.001 <= size < 100 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 3725 -> `1 h 2 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or f"{seconds:.2g} s"


def sentence_case(name: str) -> str:
    """A metric's name as a title: `share_above_threshold` -> `Share above threshold`."""
    words = name.replace("_", " ").replace("/", ": ")
    return words[:1].upper() + words[1:]


def accuracy_interval(accuracy: float, num_examples: int) -> tuple[float, float]:
    """What accuracy the set's size leaves open: the 95 % interval of Wilson (1927).

    Args:
      accuracy: share of right predictions.
      num_examples: examples it was measured on, at least 1.

    Returns:
      Lower and upper end, in [0, 1].
    """
    right = round(accuracy * num_examples)
    interval = stats.binomtest(right, num_examples).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
