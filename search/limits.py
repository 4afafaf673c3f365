"""Does a candidate keep to the limits of the search? Decided before it trains, from what its network costs."""

from __future__ import annotations

from collections.abc import Mapping


def excess(found: Mapping[str, float], limits: Mapping[str, float]) -> str | None:
    """Which limits a network exceeds, and by how much; None when it keeps to all."""
    over = [name for name in limits if found[name] > limits[name]]
    return "; ".join(f"{name} {_shown(found[name])} is above the limit {_shown(limits[name])}" for name in over) or None


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
