"""A stand-in for the Hugging Face Hub on a loopback port: the only fake in the tests of `train.hub` and `train.push`.

It speaks the part of the Hub's HTTP API that `huggingface_hub` uses for these commands: information about a model, its
tree, files with ETag and commit, preupload, LFS batch and upload, commit, new repositories and branches. The client is
the library itself. Repositories are dictionaries in memory; a commit is applied whole or not at all, as at the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_standin_secret"
OWNER = "owner"
"""The namespace that the token may write to."""
LFS = (".safetensors", ".onnx", ".bin", ".pt2", ".npz")
"""Files with these suffixes are stored as large files, as the .gitattributes of a new repository says."""


@dataclass
class Repo:
    """One repository of models."""

    private: bool = False
    gated: bool = False
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit → its files."""
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """SHA-1 of a new commit with exactly these files."""
        sha = hashlib.sha1(f"{len(self.trees)}{sorted(files)}".encode()).hexdigest()
        self.trees[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        """What the default branch shows."""
        return self.trees[self.branches["main"]]


@dataclass
class Hub:
    """The state of the server; a test reads and changes it."""

    url: str = ""
    storage: str = ""
    """Where large files are: another host, which must not get the token."""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files that were sent, by SHA-256."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Authorization) of each request."""
    fault: Callable[[str, str], int] = lambda method, path: 0
    """Status to answer with, for a method and path; 0: none; 1: close the connection; 2: also close it, afterwards."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Replaces entries of the answer to a request about a model."""

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repo:
        """A new repository with one commit."""
        repo = self.repos[name] = Repo(**options)
        repo.commit({".gitattributes": b"*.onnx filter=lfs\n", **files})
        return repo

    def asked(self, method: str, part: str) -> list[str]:
        """Paths of the requests with this method whose path contains `part`."""
        return [path for verb, path, _ in self.requests if verb == method and part in path]


@contextmanager
def running() -> Iterator[Hub]:
    """The hub, on a free port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url, hub.storage = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def oid(name: str, content: bytes) -> str:
    """The ETag of a file: SHA-256 of a large one, otherwise that of git."""
    if name.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.hub.requests.append((self.command, url.path, self.headers.get("Authorization", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.hub.fault(self.command, url.path)
        try:
            if status == 1:
                self.close_connection = True
                return
            if status > 2:
                raise _Refused(status, message="fault")
            parts = [unquote(part) for part in url.path.split("/")[1:]]
            status, headers, content = self._answer(parts, parse_qs(url.query), body)
            if self.hub.fault(self.command, url.path) == 2:
                self.close_connection = True
                return
        except _Refused as refused:
            status, content = refused.status, json.dumps({"error": refused.message}).encode()
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _answer(self, parts: list[str], query: dict[str, list[str]], body: bytes) -> tuple[int, dict[str, str], bytes]:
        match parts:
            case ["api", "models", owner, name]:
                return _json(self._about(f"{owner}/{name}", "main"))
            case ["api", "models", owner, name, "revision", revision]:
                return _json(self._about(f"{owner}/{name}", revision))
            case ["api", "models", owner, name, "tree", revision]:
                return _json(self._tree(f"{owner}/{name}", revision))
            case ["api", "models", owner, name, "preupload", revision]:
                return _json(self._preupload(f"{owner}/{name}", revision, json.loads(body)))
            case ["api", "models", owner, name, "commit", revision]:
                return _json(self._commit(f"{owner}/{name}", revision, body))
            case ["api", "models", owner, name, "branch", branch]:
                repo = self._repo(f"{owner}/{name}", write=True)
                repo.branches[branch] = json.loads(body).get("startingPoint") or repo.branches["main"]
                return _json({})
            case ["api", "repos", "create"]:
                return _json(self._create(json.loads(body)))
            case ["api", "validate-yaml"]:
                warned = [] if json.loads(body)["content"].startswith("---\n") else [{"message": "no metadata"}]
                return _json({"errors": [], "warnings": warned})
            case [owner, name, "resolve", revision, *file]:
                return self._resolve(f"{owner}/{name}", revision, "/".join(file))
            case [owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self._repo(f"{owner}/{name.removesuffix('.git')}", write=True)
                return _json({"objects": [self._upload_of(one) for one in json.loads(body)["objects"]]})
            case ["upload", digest]:
                if hashlib.sha256(body).hexdigest() != digest:
                    raise _Refused(400, message="another digest")
                self.hub.objects[digest] = body
                return _json({})
            case ["lfs", digest]:
                return 200, {}, self.hub.objects[digest]
        raise _Refused(404)

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        given = self.headers.get("Authorization", "")
        if given and given != f"Bearer {TOKEN}":
            raise _Refused(401, message="Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or ((repo.private or write) and not given):
            raise _Refused(404 if given else 401, "RepoNotFound", "Repository not found")
        if write and not name.startswith(f"{OWNER}/"):
            raise _Refused(403, message="You don't have the rights")
        return repo

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repo = self._repo(name)
        sha = repo.branches.get(revision, revision)
        if sha not in repo.trees:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.trees[sha]

    def _about(self, name: str, revision: str) -> dict[str, Any]:
        sha, files = self._files(name, revision)
        repo = self.hub.repos[name]
        siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        about = {"id": name, "modelId": name, "sha": sha, "private": repo.private, "gated": repo.gated}
        return {**about, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings, **self.hub.claims}

    def _tree(self, name: str, revision: str) -> list[dict[str, Any]]:
        found = []
        for file, content in self._files(name, revision)[1].items():
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": oid(file, content)}
            if file.endswith(LFS):
                entry["lfs"] = {"oid": oid(file, content), "size": len(content), "pointerSize": 134}
            found.append(entry)
        return found

    def _resolve(self, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        sha, files = self._files(name, revision)
        if self.hub.repos[name].gated:
            raise _Refused(403, "GatedRepo", "Access to this model is restricted")
        if file not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{oid(file, content)}"'}
        if not file.endswith(LFS):
            return 200, {**headers, "Content-Length": str(len(content))}, content
        self.hub.objects[oid(file, content)] = content
        headers |= {"X-Linked-Etag": f'"{oid(file, content)}"', "X-Linked-Size": str(len(content))}
        return 302, {**headers, "Location": f"{self.hub.storage}/lfs/{oid(file, content)}"}, b""

    def _create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refused(401, message="Invalid credentials in Authorization header")
        if wanted["organization"] != OWNER:
            raise _Refused(403, message="You don't have the rights")
        if name in self.hub.repos:
            raise _Refused(409, message="You already created this model repo")
        self.hub.add(name, {}, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return {"url": f"{self.hub.url}/{name}"}

    def _preupload(self, name: str, revision: str, wanted: dict[str, Any]) -> dict[str, Any]:
        self._repo(name, write=True)
        there = self._files(name, revision)[1]
        ignored = there.get(".gitignore", b"").decode().split()
        answers = []
        for path in (one["path"] for one in wanted["files"]):
            answer = {"path": path, "uploadMode": "lfs" if path.endswith(LFS) else "regular"}
            answer |= {"shouldIgnore": any(fnmatch(path, pattern) for pattern in ignored)}
            answers.append({**answer, "oid": oid(path, there[path]) if path in there else None})
        return {"files": answers}

    def _upload_of(self, wanted: dict[str, Any]) -> dict[str, Any]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in self.hub.objects:
            answer["actions"] = {"upload": {"href": f"{self.hub.storage}/upload/{wanted['oid']}"}}
        return answer

    def _commit(self, name: str, revision: str, body: bytes) -> dict[str, Any]:
        repo = self._repo(name, write=True)
        sha, there = self._files(name, revision)
        files, header = dict(there), {}
        for line in itertools.filterfalse(lambda line: not line, body.split(b"\n")):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _Refused(400, message=f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        if header.get("parentCommit", sha) != sha:
            raise _Refused(412, message="The branch has moved")
        new = repo.commit(files, revision, header["summary"])
        return {"commitUrl": f"{self.hub.url}/{name}/commit/{new}", "commitOid": new, "pullRequestUrl": None}


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
