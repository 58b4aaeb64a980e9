"""A client for ringgate, a connection gateway for instant messaging. `Client` is all that most programs need."""

from .client import Client, Closed, RinggateError, State, TokenFailed, Undecided
from .frames import (
    Connected, FrameError, HistoryResult, Joined, Left, Member, Message, Position, PresenceResult, Published, Recover,
    Refreshed, Stamp, Subscribed, Unsubscribed,
)

__all__ = [
    "Client", "Closed", "Connected", "FrameError", "HistoryResult", "Joined", "Left", "Member", "Message", "Position",
    "PresenceResult", "Published", "Recover", "Refreshed", "RinggateError", "Stamp", "State", "Subscribed", "TokenFailed",
    "Undecided", "Unsubscribed",
]
__version__ = "0.1.0"
