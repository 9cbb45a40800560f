"""A stand-in for the Hugging Face hub: what huggingface_hub asks of it when a folder is sent or taken, in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, abort, request
from werkzeug.serving import make_server

TOKEN = "hf_" + "x" * 34


@dataclass
class Repository:
    """Its commits, each all files by name; the last one is main."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def sha(self, number: int) -> str:
        return hashlib.sha1(f"{number} {sorted(self.commits[number])}".encode()).hexdigest()

    def find(self, revision: str) -> int | None:
        if revision == "main":
            return len(self.commits) - 1
        return next((number for number in range(len(self.commits)) if self.sha(number) == revision), None)


@dataclass
class StandIn:
    """The server: its address, its repositories by (type, name), and every request as "METHOD path"."""

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0

    def model(self, name: str) -> Repository:
        return self.repositories["model", name]


def _error(code: str, status: int = 404) -> Response:
    return Response(json.dumps({"error": code}), status, {"X-Error-Code": code, "X-Error-Message": code})


def make_app(hub: StandIn) -> Flask:
    app = Flask("hub")

    def find(kind: str, name: str, revision: str = "main") -> tuple[Repository, int]:
        found = hub.repositories.get((kind.rstrip("s"), name))
        if found is None or (found.private and request.headers.get("authorization") != f"Bearer {TOKEN}"):
            abort(_error("RepoNotFound", 404 if request.headers.get("authorization") else 401))
        number = found.find(revision)
        if number is None:
            abort(_error("RevisionNotFound"))
        return found, number

    @app.before_request
    def note() -> Response | None:
        hub.requests.append(f"{request.method} {request.path}")
        return _error("broken", hub.failing) if hub.failing else None

    @app.post("/api/repos/create")
    def create() -> Any:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _error("Unauthorized", 401)
        asked = request.get_json()
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if asked.get("organization") == "theirs":
            return _error("Forbidden", 403)
        key = (asked.get("type", "model"), name)
        status = 409 if key in hub.repositories else 200
        hub.repositories.setdefault(key, Repository(asked.get("visibility") == "private"))
        prefix = "" if key[0] == "model" else "datasets/"
        return {"url": f"{hub.url}/{prefix}{name}"}, status

    @app.post("/api/validate-yaml")
    def validate() -> Any:
        return {"errors": [], "warnings": []}

    @app.get("/api/<kind>/<user>/<name>")
    @app.get("/api/<kind>/<user>/<name>/revision/<revision>")
    def info(kind: str, user: str, name: str, revision: str = "main") -> Any:
        repository, number = find(kind, f"{user}/{name}", revision)
        return {"id": f"{user}/{name}", "modelId": f"{user}/{name}", "sha": repository.sha(number), "tags": [],
                "private": repository.private, "downloads": 0, "likes": 0, "disabled": False, "gated": False,
                "siblings": [{"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
                             for path, content in repository.commits[number].items()]}

    @app.get("/api/<kind>/<user>/<name>/tree/<revision>")
    def tree(kind: str, user: str, name: str, revision: str) -> Any:
        repository, number = find(kind, f"{user}/{name}", revision)
        return [{"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in repository.commits[number].items()]

    @app.post("/api/<kind>/<user>/<name>/preupload/<revision>")
    def preupload(kind: str, user: str, name: str, revision: str) -> Any:
        find(kind, f"{user}/{name}", revision)
        large = (".safetensors", ".parquet")
        return {"files": [{"path": file["path"], "shouldIgnore": False, "oid": None,
                           "uploadMode": "lfs" if file["path"].endswith(large) else "regular"}
                          for file in request.get_json()["files"]]}

    @app.post("/<user>/<name>.git/info/lfs/objects/batch")
    @app.post("/datasets/<user>/<name>.git/info/lfs/objects/batch")
    def batch(user: str, name: str) -> Any:
        return {"transfer": "basic", "objects": [
            {"oid": one["oid"], "size": one["size"], "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}
            for one in request.get_json()["objects"]]}

    @app.put("/lfs/<oid>")
    def upload(oid: str) -> Any:
        hub.blobs[oid] = request.get_data()
        return "", 200

    @app.post("/api/<kind>/<user>/<name>/commit/<revision>")
    def commit(kind: str, user: str, name: str, revision: str) -> Any:
        repository, _ = find(kind, f"{user}/{name}", revision)
        files = dict(repository.files)
        for line in request.get_data().splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        repository.commits.append(files)
        sha = repository.sha(len(repository.commits) - 1)
        return {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{user}/{name}/commit/{sha}"}

    @app.get("/<user>/<name>/resolve/<revision>/<path:path>")
    @app.get("/datasets/<user>/<name>/resolve/<revision>/<path:path>", defaults={"kind": "dataset"})
    def resolve(user: str, name: str, revision: str, path: str, kind: str = "model") -> Any:
        repository, number = find(kind, f"{user}/{name}", revision)
        content = repository.commits[number][path]
        return Response(content, 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                                    "X-Repo-Commit": repository.sha(number)})

    return app


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve an empty hub at an address of this machine."""
    hub = StandIn()
    server = make_server("127.0.0.1", 0, make_app(hub), threaded=True)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
