"""The queue: answers are those of their own request; what fails, expires or is not wanted concerns no other one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from stageproof.runtime import BackendError, Predictor
from stageproof.serving.http.inference.batching import Batcher
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.loaded import Loaded, load
from tests.serving.conftest import BUNDLE
from tests.serving.http_service.running import other_bundle, plain

FAR = 1e9
POISON = b"poison"


class Held(Predictor):
    """A Predictor that waits before each batch until `gate` is set, and whose engine fails for `POISON`."""

    def __init__(self, path, **options):
        super().__init__(path, **options)
        self.gate = threading.Event()
        self.gate.set()
        self.seen = []
        self.begun = threading.Semaphore(0)

    def predict(self, image):
        self._begin([image])
        if image == POISON:
            raise BackendError("the engine failed")
        return super().predict(image)

    def stream(self, images, *rest, **options):
        images = list(images)
        self._begin(images)
        for at, prediction in enumerate(super().stream(images, *rest, **options)):
            if images[at] == POISON:
                raise BackendError("the engine failed")
            yield prediction

    def _begin(self, images):
        self.begun.release()
        assert self.gate.wait(60)
        self.seen += images


class Seen:
    """An observer that counts."""

    def __init__(self):
        self.batches, self.lost = [], Counter()

    def queue(self, images):
        assert images >= 0

    def batch(self, images):
        self.batches.append(images)

    def waited(self, seconds):
        assert seconds >= 0

    def dropped(self, why):
        self.lost[why] += 1

    def answered(self, answer):
        pass


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(BUNDLE, lambda path: Held(path, backend="onnx", threads=1))


@pytest.fixture
def held(loaded) -> Held:
    loaded.predictor.seen.clear()
    yield loaded.predictor
    loaded.predictor.gate.set()


@pytest.fixture
def batcher(loaded, held):
    """`batcher(**options)`: one runner by default."""
    made = []

    def make(current=lambda: loaded, **options):
        made.append(Batcher(current, Seen(), **{"runners": 1, **options}))
        return made[-1]

    yield make
    held.gate.set()
    for one in made:
        one.close()


def block(one: Batcher, held: Held, image: bytes):
    """Close the gate, and submit a request that has begun to wait there."""
    while held.begun.acquire(blocking=False):
        pass
    held.gate.clear()
    first = one.submit([image], FAR)
    assert held.begun.acquire(timeout=60)
    return first


@pytest.mark.parametrize("runners", [1, 3])
def test_concurrent_requests_get_their_own_answers(batcher, images, expected, runners):
    one = batcher(runners=runners, max_images=10_000)

    def ask(seed: int) -> None:
        chosen = [(seed * 7 + at * (seed + 1)) % len(images) for at in range(1 + seed % 4)]
        answer = one.submit([images[at] for at in chosen], FAR).result(60)
        assert [plain(found) for found in answer.predictions] == [expected[at] for at in chosen]

    with ThreadPoolExecutor(8) as clients:
        assert len(list(clients.map(ask, range(60)))) == 60


def test_a_batch_is_what_waited_while_the_last_one_ran(batcher, held, images):
    one = batcher(max_batch=6)
    first = block(one, held, images[0])
    rest = [one.submit([images[at % 4]], FAR) for at in range(8)]
    held.gate.set()
    assert all(len(future.result(60).predictions) == 1 for future in [first, *rest])
    assert one._observer.batches == [1, 6, 2]


def test_nothing_waits_for_a_batch_to_fill_unless_it_is_told_to(batcher, images):
    one = batcher(max_wait=3600.0, max_batch=2)  # the second request fills the batch
    futures = [one.submit([images[at]], FAR) for at in range(2)]
    assert [len(future.result(60).predictions) for future in futures] == [1, 1]
    assert one._observer.batches == [2]
    assert len(batcher(max_batch=2).submit([images[0]], FAR).result(60).predictions) == 1  # no second one


def test_a_poisoned_request_fails_alone(batcher, held, images, expected):
    one = batcher()
    first = block(one, held, images[0])
    asked = [[images[1]], [images[2], POISON], [images[3]], [images[9], images[10]]]
    futures = [one.submit(each, FAR) for each in asked]
    held.gate.set()
    first.result(60)
    with pytest.raises(BackendError, match="the engine failed"):
        futures[1].result(60)
    for at in (0, 2, 3):
        found = [plain(each) for each in futures[at].result(60).predictions]
        assert found == [expected[images.index(image)] for image in asked[at]]
    assert one._observer.lost == {"failed": 1}


def test_a_full_queue_refuses_with_the_time_to_wait(batcher, held, images):
    one = batcher(max_images=4)
    first = block(one, held, images[0])
    waiting = [one.submit(images[:2], FAR), one.submit(images[:2], FAR)]
    with pytest.raises(Refusal, match=r"the queue has 4 images, and 1 more would exceed 4") as refused:
        one.submit(images[:1], FAR)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    held.gate.set()
    assert [len(future.result(60).predictions) for future in [first, *waiting]] == [1, 2, 2]
    assert len(one.submit(images[:6], FAR).result(60).predictions) == 6  # more than the queue, but it is empty


def test_an_expired_request_is_not_predicted(batcher, held, images):
    one = batcher()
    first = block(one, held, images[0])
    late = one.submit([images[5]], time.monotonic() - 1)
    good = one.submit([images[6]], FAR)
    held.gate.set()
    with pytest.raises(Refusal, match="the deadline of the request passed") as refused:
        late.result(60)
    assert refused.value.status == 504
    assert [future.result(60).predictions[0].status for future in (first, good)]
    assert held.seen == [images[0], images[6]]
    assert one._observer.lost == {"expired": 1}


def test_a_cancelled_request_is_not_predicted(batcher, held, images):
    one = batcher()
    first = block(one, held, images[0])
    gone, good = one.submit([images[5]], FAR), one.submit([images[6]], FAR)
    assert gone.cancel()
    held.gate.set()
    good.result(60)
    with pytest.raises(CancelledError):
        gone.result(60)
    assert first.done()
    assert held.seen == [images[0], images[6]]
    assert one._observer.lost == {"disconnected": 1}


@pytest.mark.parametrize(("seconds", "why"), [(FAR, "disconnected"), (0.0, "expired")])
def test_a_cancelled_request_leaves_its_place_at_once(batcher, held, images, seconds, why):
    one = batcher(max_images=2)
    first = block(one, held, images[0])
    gone = one.submit([images[5], images[6]], time.monotonic() + seconds)
    with pytest.raises(Refusal, match="the queue has 2 images"):
        one.submit([images[1]], FAR)
    assert gone.cancel()
    good = one.submit([images[1], images[2]], FAR)
    assert one._observer.lost == {"full": 1, why: 1}
    held.gate.set()
    assert len(good.result(60).predictions) == 2
    assert first.done()
    assert held.seen == [images[0], images[1], images[2]]


def test_closing_answers_what_was_accepted_and_refuses_the_rest(batcher, held, images):
    one = batcher(max_images=1 << 30)
    futures = [block(one, held, images[0]), *(one.submit([images[at]], FAR) for at in range(5))]
    closing = threading.Thread(target=one.close)
    closing.start()

    def submit_until_refused():
        while True:
            futures.append(one.submit([images[0]], FAR))

    with pytest.raises(Refusal, match="the service is stopping"):
        submit_until_refused()
    held.gate.set()
    closing.join(60)
    assert all(future.done() and not future.exception() for future in futures)


def test_a_study_is_answered_as_the_predictor_does(batcher, predictor, images):
    one = batcher()
    answer = one.submit(images, FAR, study=True).result(60)
    want = predictor.predict_study(images)
    assert (answer.study.status, answer.study.label, answer.study.used) == (want.status, want.label, want.used)
    assert [plain(each) for each in answer.predictions] == [plain(each) for each in want.slices]


def test_a_request_is_answered_whole_by_one_bundle(batcher, held, loaded, images, tmp_path):
    other = load(other_bundle(tmp_path / "other"), lambda path: Predictor(path, backend="onnx", threads=1))
    use = [loaded]
    one = batcher(lambda: use[0])
    before = one.submit(images[:4], FAR)
    before.result(60)
    first = block(one, held, images[0])
    after = one.submit(images[:4], FAR)
    use[0] = other
    held.gate.set()
    assert {each.model_digest for each in first.result(60).predictions} == {loaded.model_digest}
    assert {each.model_digest for each in after.result(60).predictions} == {other.model_digest}
    labels = [[each.label for each in future.result(60).predictions] for future in (before, after)]
    assert all(old != new for old, new in zip(*labels, strict=True) if old and new)
