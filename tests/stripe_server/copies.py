"""Copies of what JSON can hold: an answer and an event must not change when the state does."""

from __future__ import annotations

from typing import TypeVar, cast

T = TypeVar("T")


def copied(value: T) -> T:
    """Copy dicts and lists all the way down, several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return cast("T", {key: copied(each) for key, each in value.items()})
    if isinstance(value, list):
        return cast("T", [copied(each) for each in value])
    return value
