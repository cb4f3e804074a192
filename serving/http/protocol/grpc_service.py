"""The Open Inference Protocol in gRPC: the same service, queue and limits as HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from stageproof.runtime.errors import StageproofError
from stageproof.serving.http.inference.errors import Refusal, bad
from stageproof.serving.http.inference.service import READY, Service
from stageproof.serving.http.protocol import metadata, requests
from stageproof.serving.http.protocol.messages import METHODS, SERVICE, message
from stageproof.serving.http.protocol.tensors import OUTPUTS, InputTensor, check_outputs, images_of, outputs_of, shown
from stageproof.serving.http.transport.access import check_token
from stageproof.serving.http.transport.bodies import Budget

logger = logging.getLogger(__name__)

MAX_CALLS = 64
"""Limit on calls at once: gRPC receives a message whole before its bytes are counted."""
MAX_TYPED = 8 << 20
"""Limit on the elements of typed contents, each of which becomes an object."""
_CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents"}
_ROUTE = f"/{SERVICE}/"
_HEALTH = ("ServerLive", "ServerReady")


async def start(service: Service, budget: Budget, token: bytes | None, address: str) -> tuple[grpc.aio.Server, int]:
    """The started server at ``HOST:PORT``, and its port. token: as for HTTP, in the metadata ``authorization``.

    Raises StageproofError if it cannot listen there.
    """
    given = service.options
    server = grpc.aio.server(
        maximum_concurrent_rpcs=min(given.max_connections, MAX_CALLS),
        options=[
            ("grpc.max_receive_message_length", given.max_body),
            # Several workers share a port; one alone must notice that another service has it.
            ("grpc.so_reuseport", int(given.workers > 1)),
            ("grpc.max_metadata_size", 64 << 10),
        ],
    )
    rpcs = _Rpcs(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(getattr(rpcs, name), name, service, budget, token),
            response_serializer=message(f"{name}Response").SerializeToString,
        )
        for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        if given.tls_cert is None or given.tls_key is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(given.tls_cert, given.tls_key))
    except RuntimeError as error:
        raise StageproofError(f"gRPC cannot listen on {address}: is another process using the port?") from error
    await server.start()
    return server, port


def _credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])


def _guarded(
    call: Callable[[Any, Any], Awaitable[Any]], name: str, service: Service, budget: Budget, token: bytes | None
) -> Callable[[bytes, Any], Awaitable[Any]]:
    """The method with token, budget of bytes, metrics, access log, and refusals as statuses of gRPC.

    A message is parsed after its token and its size were checked.
    """
    parse = message(f"{name}Request").FromString

    async def run(sent: bytes, context: grpc.aio.ServicerContext) -> Any:
        start, status = time.monotonic(), "CANCELLED"
        try:
            if name not in _HEALTH:
                given = dict(context.invocation_metadata() or ())
                check_token(token, str(given.get("authorization", "")).encode("latin-1", "replace"))
            with budget.held() as held:
                held.at_least(len(sent))
                try:
                    request = parse(sent)
                except DecodeError:
                    raise bad(f"the message is no {name}Request of the Open Inference Protocol.") from None
                answer = await call(request, context)
            status = "OK"
        except Refusal as refusal:
            status = refusal.grpc
            more = tuple((key.lower(), value) for key, value in refusal.headers.items())
            await context.abort(grpc.StatusCode[status], refusal.message, more)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status = "INTERNAL"
            logger.exception(f"a call of {name} failed ({type(error).__name__})")
            await context.abort(grpc.StatusCode.INTERNAL, f"the request failed ({type(error).__name__}).")
        finally:
            seconds = time.monotonic() - start
            service.metrics.requests.labels(f"{_ROUTE}{name}", status).inc()
            service.metrics.request_seconds.labels(f"{_ROUTE}{name}").observe(seconds)
            if service.options.access_log:
                logger.info(f"gRPC {name} {status} {seconds * 1e3:.1f} ms, {context.peer()}")
        return answer

    return run


class _Rpcs:
    """The methods of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._name = service.options.name

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return message("ServerLiveResponse")(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return message("ServerReadyResponse")(ready=self._service.state == READY)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            metadata.check_model(self._name, request.name, request.version)
        except Refusal:  # an unknown model is not ready, as Triton answers; clients poll this
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=self._service.state == READY)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return message("ServerMetadataResponse")(**metadata.server())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        metadata.check_model(self._name, request.name, request.version)
        return message("ModelMetadataResponse")(**metadata.model(self._name, self._service.loaded))

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        metadata.check_model(self._name, request.model_name, request.model_version)
        parameters = _plain(request.parameters)
        requests.check_parameters(parameters, "the request")
        images = images_of(_tensors(request), self._service.options.max_images)
        if len(request.outputs) > len(OUTPUTS):
            raise bad(f"the request names {len(request.outputs)} outputs; there are {len(OUTPUTS)}.")
        for output in request.outputs:
            requests.check_parameters(output.parameters, "an output")
        names = [output.name for output in request.outputs] or list(OUTPUTS)
        check_outputs(names)
        waits = [requests.timeout_of(parameters), context.time_remaining()]
        stated = [seconds for seconds in waits if seconds is not None]
        deadline = self._service.deadline(min(stated) if stated else None)
        answer = await self._service.answer(images, deadline)
        response = message("ModelInferResponse")(model_name=self._name, model_version=metadata.VERSION, id=request.id)
        response.parameters["bundle_digest"].string_param = answer.loaded.bundle_digest
        for tensor in outputs_of(answer, names):
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(tensor.raw())
        return response


def _plain(parameters: Any) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }


def _tensors(request: Any) -> list[InputTensor]:
    """The inputs, from `raw_input_contents` or from their own contents. Raises Refusal (400)."""
    if len(request.inputs) != 1:
        raise bad(f"the request has {len(request.inputs)} inputs; expected exactly one of 'image' and 'pixels'.")
    raw = list(request.raw_input_contents[:2])
    if raw and len(raw) != len(request.inputs):
        count = len(request.raw_input_contents)
        raise bad(f"raw_input_contents has {count} entries for {len(request.inputs)} inputs; expected one for each.")
    found = []
    for at, tensor in enumerate(request.inputs):
        requests.check_parameters(tensor.parameters, f"input {shown(tensor.name)}")
        given: dict[str, Any]
        if raw:
            if tensor.contents.ListFields():
                raise bad(f"input {shown(tensor.name)} has contents, and the request raw_input_contents; expected one.")
            given = {"raw": raw[at]}
        else:
            given = {"elements": _elements(tensor)}
        found.append(InputTensor(tensor.name, tensor.datatype, list(tensor.shape), **given))
    return found


def _elements(tensor: Any) -> list[Any]:
    expected = _CONTENTS.get(tensor.datatype)
    for field, values in tensor.contents.ListFields():
        if field.name != expected:
            raise bad(
                f"input {shown(tensor.name)} of datatype {tensor.datatype!r} has {field.name}; expected "
                f"{expected or 'none'}."
            )
        if len(values) > MAX_TYPED:
            raise Refusal(413, f"the input has more than {MAX_TYPED} numbers in {expected}. Send raw_input_contents.")
        return list(values)
    return []
