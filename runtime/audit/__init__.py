"""An audit log: one JSON line a prediction, without patient data, each bound to the one before it by a key."""

from stageproof.runtime.audit.chain import make_key
from stageproof.runtime.audit.log import AuditLog, pixels_digest
from stageproof.runtime.audit.verification import Report, check, verify

__all__ = ["AuditLog", "Report", "check", "make_key", "pixels_digest", "verify"]
