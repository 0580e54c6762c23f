"""One request from its head to its reply, written once for every driver, as a generator of effects."""

from __future__ import annotations

from tus.protocols.exchange import exchange
from tus.protocols.handover import hand_over_alone

__all__ = ["exchange", "hand_over_alone"]
