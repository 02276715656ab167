"""Durable, bounded store-and-forward of samples between the meters and the coordinator."""

from agent.spool.accounts import Books
from agent.spool.database import SpoolBounds
from agent.spool.row import Batch, Committed
from agent.spool.spool import Spool
from agent.spool.store import SampleStore, Sync

__all__ = ["Batch", "Books", "Committed", "SampleStore", "Spool", "SpoolBounds", "Sync"]
