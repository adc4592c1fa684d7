"""The spool: published frames on the camera's disk until Kafka is known to hold them."""

from producers.spool.ledger import BootLedger
from producers.spool.scan import SpoolBoot, scan_spool
from producers.spool.spool import FrameKey, Spool, SpooledFrame, SpoolLimits

__all__ = ["BootLedger", "FrameKey", "Spool", "SpoolBoot", "SpoolLimits", "SpooledFrame", "scan_spool"]
