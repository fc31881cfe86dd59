"""Sets of which most have one member: what a topic or a transport keeps of a subscription, in a few words of memory.

A set is None while it is empty, its member while that is one, a tuple while it has few, and a dict of Nones, which finds and
removes quickly, when it has many. A member is neither None, tuple nor dict.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

FEW = 6  # up to here a tuple is smaller than a dict, and as quick


def with_member(members: Any, member: object) -> Any:
    """The set with this member, which it does not have yet."""
    if members is None:
        return member
    if type(members) is dict:
        members[member] = None
        return members
    if type(members) is not tuple:
        return members, member
    if len(members) < FEW:
        return (*members, member)
    return dict.fromkeys((*members, member))


def without_member(members: Any, member: object) -> Any:
    """The set without this member, which it has."""
    if type(members) is dict:
        del members[member]
        # A dict gives no memory back when it shrinks.
        return members if len(members) > FEW // 2 else tuple(members)
    rest = tuple(other for other in each(members) if other is not member)
    return rest if len(rest) > 1 else rest[0] if rest else None


def each(members: Any) -> Collection[Any]:
    """Its members, in the order in which they came."""
    if type(members) is tuple or type(members) is dict:
        return members
    return () if members is None else (members,)
