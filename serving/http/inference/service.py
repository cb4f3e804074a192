"""`Service`: the bundle in use, its queue, and the state of the service. HTTP and gRPC call it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import AuditError, InputError, IsolationError, StageproofError
from stageproof.runtime.images.reader import Source
from stageproof.runtime.predictor import Predictor
from stageproof.serving.http.inference.batching import EXPIRED, STOPPED, Answer, Batcher
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.loaded import Loaded, load
from stageproof.serving.http.inference.metrics import Metrics
from stageproof.serving.http.options import Options

logger = logging.getLogger(__name__)

LOADING, READY, DRAINING = "loading", "ready", "draining"


@dataclass(frozen=True)
class Reload:
    """The last attempt to load another bundle."""

    outcome: str
    """swapped, unchanged or refused."""
    bundle_digest: str | None
    """Of the bundle that was loaded; None if it was refused."""
    error: str = ""


class Service:
    """Loads the bundle, answers requests through one `Batcher`, and replaces the bundle. Thread-safe.

    make: path → Predictor, for the first bundle and for each that replaces it.
    """

    def __init__(self, options: Options, metrics: Metrics, make: Callable[[Path], Predictor] | None = None) -> None:
        self.options, self.metrics = options, metrics
        self._make = make or self._predictor
        self._loaded: Loaded | None = None
        self._batcher: Batcher | None = None
        self._is_draining = False
        self._reload: Reload | None = None
        self._loading = threading.Lock()
        self.metrics.ready.set(0)

    @property
    def state(self) -> str:
        """`LOADING`, `READY` or `DRAINING`."""
        if self._is_draining:
            return DRAINING
        return LOADING if self._loaded is None else READY

    @property
    def loaded(self) -> Loaded:
        """The bundle in use. Raises Refusal (503) while the first one is loaded."""
        if self._loaded is None:
            raise Refusal(503, "the bundle is still being loaded and tested. Send the request again later.", 2)
        return self._loaded

    def status(self) -> dict[str, Any]:
        """JSON-ready: the state, the bundle in use, and the last attempt to replace it."""
        found = self._loaded
        last = self._reload
        return {
            "ready": self.state == READY,
            "state": self.state,
            "bundle_digest": found and found.bundle_digest,
            "model_digest": found and found.model_digest,
            "self_test": found and found.self_test,
            "last_reload": last and {"outcome": last.outcome, "bundle_digest": last.bundle_digest, "error": last.error},
        }

    def start(self) -> None:
        """Load the first bundle, then accept requests. Raises what `load` raises."""
        with self._loading:
            loaded = load(self.options.bundle, self._make)
            self._loaded = loaded
            self.metrics.loaded(loaded)
            self._batcher = Batcher(
                lambda: self.loaded,
                self.metrics,
                runners=loaded.predictor.concurrent_calls + 1,
                max_images=self.options.queue_images,
                max_batch=self.options.max_batch,
                max_wait=self.options.max_wait_ms / 1e3,
            )
        self.metrics.ready.set(1)
        logger.info(
            f"ready: bundle {loaded.bundle_digest[:12]}, {loaded.predictor.engine}, self-test {loaded.self_test}"
        )

    def replace(self) -> Reload:
        """Load the bundle again from its path and swap it between batches; keep the old one if the new one fails."""
        with self._loading:
            old = self.loaded
            try:
                new = load(self.options.bundle, self._make)
            except Exception as error:  # noqa: BLE001  whatever is wrong with the new bundle, the old one is whole
                why = str(error) if isinstance(error, StageproofError) else type(error).__name__
                self._reload = Reload("refused", None, f"{type(error).__name__}: {why}")
                logger.error(f"the new bundle was refused; {old.bundle_digest[:12]} stays in use. {self._reload.error}")
            else:
                same = new.bundle_digest == old.bundle_digest
                self._reload = Reload("unchanged" if same else "swapped", new.bundle_digest)
                if not same:
                    self._loaded = new
                    self.metrics.loaded(new)
                logger.info(f"reload: {self._reload.outcome}, bundle {new.bundle_digest[:12]} in use")
            self.metrics.reloads.labels(self._reload.outcome).inc()
            return self._reload

    def drain(self) -> None:
        """From now on not ready; requests that arrive on open connections are still answered until `close`."""
        self._is_draining = True
        self.metrics.ready.set(0)

    def close(self) -> None:
        """Answer what is in the queue, then refuse everything."""
        self.drain()
        if self._batcher is not None:
            self._batcher.close()

    def deadline(self, seconds: float | None) -> float:
        """`time.monotonic()` of the end of a request; seconds: what the client waits, None: not stated."""
        most = self.options.timeout_s
        return time.monotonic() + (most if seconds is None else min(seconds, most))

    async def answer(self, images: Sequence[Source], deadline: float, *, study: bool = False) -> Answer:
        """The answer for one request. Cancelling the call drops the request from the queue.

        Raises Refusal: 503 full, loading or stopping, 504 after the deadline, 500 if the Predictor failed.
        """
        self.loaded  # noqa: B018  raises
        if self._batcher is None:
            raise Refusal(503, STOPPED, 1)
        future = asyncio.wrap_future(self._batcher.submit(images, deadline, study=study))
        try:
            return await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()))
        except (asyncio.TimeoutError, TimeoutError):
            raise Refusal(504, EXPIRED) from None
        except Refusal:
            raise
        except InputError as error:
            raise Refusal(400, str(error)) from None
        except (AuditError, IsolationError) as error:  # nothing is wrong with the request: a disk or a limit is full
            raise Refusal(503, f"{type(error).__name__}: the prediction is withheld; see the log.", 5) from error
        except Exception as error:
            raise Refusal(
                500, f"the prediction failed ({type(error).__name__}); the service's log has more."
            ) from error

    def _predictor(self, bundle: Path) -> Predictor:
        given = self.options
        return Predictor(
            bundle,
            backend=given.backend,
            precision=given.precision,
            device=given.device,
            threads=given.threads,
            optimize_for=given.optimize_for,
            abstain_below=given.abstain_below,
            audit=given.audit,
            audit_key=given.audit_key,
            max_pixels=given.max_pixels,
            trust_code=given.trust_code,
            trusted_key=given.trusted_key,
            trusted_digest=given.trusted_digest,
        )
