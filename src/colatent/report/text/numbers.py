"""Numbers as tables and figures write them."""

import math


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table, with a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign."""
    if math.isinf(value):
        return "−∞" if value < 0 else "+∞"
    text = number(value, digits)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


def plus_minus(mean: float, sem: float, digits: int = 3) -> str:
    """Return ``mean ± s.e.m.``, or the mean alone where one fold gives no s.e.m."""
    if math.isinf(mean):
        return "−∞" if mean < 0 else "∞"
    if math.isnan(mean):
        return "–"
    return f"{number(mean, digits)} ± {number(sem, digits)}" if math.isfinite(sem) else number(mean, digits)
