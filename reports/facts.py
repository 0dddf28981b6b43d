"""Pairs of a name and a value, as the lists of the report show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and what it is, formatted."""

    name: str
    value: str


def facts(*pairs: tuple[str, str]) -> tuple[Fact, ...]:
    """A list of facts from names and values."""
    return tuple(Fact(name=name, value=value) for name, value in pairs)
