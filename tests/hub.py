"""A model hub on a loopback port: enough of the Hub's API for `snapshot_download`, over folders on disk."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import huggingface_hub

BRANCH = "main"


class Hub:
    """Repositories in memory: `commit` sets the head of a branch, `pulled` lists the files that were sent.

    Attributes:
        url: what HF_ENDPOINT is set to for other processes.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.pulled: list[str] = []
        self._commits: dict[tuple[str, str], Path] = {}
        self._branches: dict[tuple[str, str], str] = {}

    def commit(self, repository: str, folder: Path, branch: str = BRANCH) -> str:
        """Make the files of `folder`, which must not change, the head of a branch; returns the commit."""
        digest = hashlib.sha1()
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        sha = digest.hexdigest()
        self._commits[repository, sha] = folder
        self._branches[repository, branch] = sha
        return sha

    def find(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """The commit of a branch or of a commit, and its folder."""
        sha = self._branches.get((repository, revision), revision)
        folder = self._commits.get((repository, sha))
        return None if folder is None else (sha, folder)


@contextmanager
def running_hub(cache: Path) -> Iterator[Hub]:
    """A hub that this process uses while the block runs, with its cache in `cache`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
    }
    try:
        with patch.multiple(huggingface_hub.constants, **constants):
            yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        hub: Hub = self.server.hub
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            owner, name, *rest = parts[2:]
            revision = rest[1] if rest[:1] in (["revision"], ["tree"]) else BRANCH
            found = hub.find(f"{owner}/{name}", revision)
            return self._refuse() if found is None else self._describe(f"{owner}/{name}", rest, *found)
        owner, name, _, revision, file = parts
        found = hub.find(f"{owner}/{name}", revision)
        if found is None or not (found[1] / file).is_file():
            return self._refuse()
        if self.command == "GET":
            hub.pulled.append(file)
        data = (found[1] / file).read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return self._answer(data, **{"ETag": etag, "X-Repo-Commit": found[0]})

    do_HEAD = do_GET

    def _describe(self, repository: str, rest: list[str], sha: str, folder: Path) -> None:
        files = sorted(path.name for path in folder.iterdir())
        if rest[:1] == ["tree"]:
            sizes = {name: (folder / name).stat().st_size for name in files}
            tree = [{"type": "file", "path": n, "size": size, "oid": "0"} for n, size in sizes.items()]
            return self._answer(json.dumps(tree).encode())
        siblings = [{"rfilename": name} for name in files]
        return self._answer(json.dumps({"id": repository, "sha": sha, "siblings": siblings}).encode())

    def _answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self) -> None:
        self._answer(b"{}", 404, **{"X-Error-Code": "RevisionNotFound"})

    def log_message(self, format: str, *args: Any) -> None:
        pass
