"""Which version of `websockets` has this API; libraries look at it."""

__all__ = ["version"]

version = "17.4"
