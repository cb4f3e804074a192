"""Tamper-evident audit log: one JSON line per prediction, without patient data, hash-chained and keyed (HMAC)."""

from stageproof.runtime.audit.chain import make_key
from stageproof.runtime.audit.log import AuditLog, pixels_digest
from stageproof.runtime.audit.verification import Report, check, verify

__all__ = ["AuditLog", "Report", "check", "make_key", "pixels_digest", "verify"]
