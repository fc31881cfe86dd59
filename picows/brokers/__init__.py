"""Brokers join the topics of several processes: the interface. Those that come with the package are modules of their own.

``from picows.brokers.nats import NATSBroker`` and ``from picows.brokers.redis import RedisBroker``.
"""

from .._broker import WSBroker

__all__ = ["WSBroker"]
