"""Round numbers for the axes of a chart."""

from __future__ import annotations

import math


def steps(most: float, wanted: int = 5) -> list[float]:
    """Round values from 0 to ``most`` or just above, about as many as wanted."""
    if not most > 0 or not math.isfinite(most):
        return [0.0, 1.0]
    raw = most / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def readable(value: float) -> str:
    """A figure as a person writes it: three digits that count, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.0f}"
