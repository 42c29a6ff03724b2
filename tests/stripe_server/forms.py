"""Stripe's form encoding: `line_items[0][price]=price_1` is a tree, written flat.

A tree is dicts of dicts, also where the specification has an array: whether `items[0]` begins a
list or a map is known only to who reads it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

Tree = dict[str, Any]

_SEGMENT = re.compile(r"\[([^\]]*)\]")


def decode(text: str) -> Tree:
    """Return the tree that a query string or a form body stands for."""
    tree: Tree = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        head = key.split("[", 1)[0]
        _put(tree, [head, *_SEGMENT.findall(key)], value)
    return tree


def path_of(parts: list[str]) -> str:
    """Write a path as the request wrote it: `line_items[0][price]`."""
    return parts[0] + "".join(f"[{part}]" for part in parts[1:])


def ordered(branch: Tree) -> list[Any]:
    """Return the members of an array, in the order of their indexes."""
    return [branch[key] for key in sorted(branch, key=lambda key: int(key) if key.isdigit() else 0)]


def _put(tree: Tree, parts: list[str], value: str) -> None:
    for part in parts[:-1]:
        below = tree.setdefault(part or str(len(tree)), {})
        if not isinstance(below, dict):  # `a=1&a[b]=2`: the later word counts
            below = tree[part] = {}
        tree = below
    tree[parts[-1] or str(len(tree))] = value
