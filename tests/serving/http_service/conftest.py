"""What the tests of the service share: one running service, one Predictor of the same bundle, and images."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stageproof.runtime import Predictor
from tests.serving.conftest import BUNDLE
from tests.serving.http_service.running import Running, mixed, running, says


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[Running]:
    """A running service with HTTP and gRPC. Do not stop it."""
    limits = ("--max-body-mb", "2", "--max-images", "40", "--header-timeout-s", "2", "--body-timeout-s", "2")
    with running(tmp_path_factory.mktemp("service"), "--grpc-port", "0", *limits) as one:
        one.grpc_port = int(re.search(r"gRPC on 127.0.0.1:(\d+)", one.log)[1])
        yield one


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The Predictor that the service has."""
    return Predictor(BUNDLE, backend="onnx", threads=1)


@pytest.fixture(scope="session")
def images() -> list[bytes]:
    """Good, rejected and broken images."""
    return mixed()


@pytest.fixture(scope="session")
def expected(predictor, images) -> list[dict[str, Any]]:
    """What the Predictor says of each."""
    return says(predictor, images)
