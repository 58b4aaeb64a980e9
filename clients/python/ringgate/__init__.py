"""A client for ringgate, a connection gateway for instant messaging. `Client` is all that most programs need."""

from .client import Client, Closed, RinggateError, State, Undecided
from .frames import (
    Connected, FrameError, HistoryResult, Joined, Left, Member, Message, Position, PresenceResult, Published, Refreshed,
    Stamp, Subscribed, Unsubscribed,
)

__all__ = [
    "Client", "Closed", "Connected", "FrameError", "HistoryResult", "Joined", "Left", "Member", "Message", "Position",
    "PresenceResult", "Published", "Refreshed", "RinggateError", "Stamp", "State", "Subscribed", "Undecided", "Unsubscribed",
]
__version__ = "0.1.0"
