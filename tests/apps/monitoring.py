"""Sentry watches whoever imports this; its events and spans go to the record."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from sentry_sdk.transport import Transport
from support import record


class Recording(Transport):
    def capture_envelope(self, envelope: Any) -> None:
        for item in envelope.items:
            payload = item.payload.json or {}
            if item.type == "event":
                errors = payload.get("exception", {}).get("values", [{}])
                record(f"event: {errors[-1].get('type')}: {errors[-1].get('value')}")
            elif item.type == "transaction":
                spans = [payload["contexts"]["trace"], *payload.get("spans", ())]
                bad = {"internal_error", "unknown_error", "cancelled", "aborted"}
                failed = [span for span in spans if span.get("status") in bad]
                record(f"transaction {payload['transaction']}: {len(failed)} failed")


sentry_sdk.init(
    dsn="http://key@127.0.0.1/1", transport=Recording, traces_sample_rate=1.0, shutdown_timeout=0
)
