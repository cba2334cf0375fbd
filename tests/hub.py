"""A hub on a loopback port: enough of the API for `huggingface_hub` and `datasets`, over folders on disk."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
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
        """Make the files of `folder`, which must not change, the head of a branch; returns the commit.

        The repository of a dataset is named "datasets/owner/name".
        """
        digest = hashlib.sha1()
        for name in files_in(folder):
            digest.update(name.encode() + (folder / name).read_bytes())
        sha = digest.hexdigest()
        self._commits[repository, sha] = folder
        self._branches[repository, branch] = sha
        return sha

    def find(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """The commit of a branch or of a commit, and its folder."""
        sha = self._branches.get((repository, revision), revision)
        folder = self._commits.get((repository, sha))
        return None if folder is None else (sha, folder)


def files_in(folder: Path) -> list[str]:
    """Paths of the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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
    patches = [
        patch.multiple(huggingface_hub.constants, **constants),
        patch.multiple(datasets.config, HF_ENDPOINT=hub.url, HF_DATASETS_CACHE=cache / "datasets"),
    ]
    try:
        with ExitStack() as stack:
            for each in patches:
                stack.enter_context(each)
            # File systems are kept by their arguments, with the files that they listed.
            huggingface_hub.HfFileSystem.clear_instance_cache()
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
        api = parts[0] == "api"
        kind, owner, name, *rest = (
            parts[1:] if api else parts if parts[0] == "datasets" else ["models", *parts]
        )
        repository = f"datasets/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}"
        revision = rest[1] if len(rest) > 1 else BRANCH
        found = hub.find(repository, revision)
        if found is None:
            return self._refuse()
        if api:
            return self._describe(f"{owner}/{name}", rest, *found)
        file = "/".join(rest[2:])
        if not (found[1] / file).is_file():
            return self._refuse("EntryNotFound")
        if self.command == "GET":
            hub.pulled.append(file)
        return self._send(found[1] / file, found[0])

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """The descriptions of some paths."""
        length = int(self.headers["Content-Length"])
        wanted = parse_qs(self.rfile.read(length).decode())["paths"] if length else []
        hub: Hub = self.server.hub
        _, kind, owner, name, _, revision = [unquote(part) for part in self.path.strip("/").split("/")]
        found = hub.find(f"{kind}/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}", revision)
        if found is None:
            return self._refuse()
        entries = [entry for entry in _tree(found[1]) if entry["path"] in wanted]
        return self._answer(json.dumps(entries).encode())

    def _send(self, path: Path, sha: str) -> None:
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": sha}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._answer(data, **headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._answer(data[start : end + 1], 206, **headers)

    def _describe(self, repository: str, rest: list[str], sha: str, folder: Path) -> None:
        if rest[:1] == ["tree"]:
            place, deep = "/".join(rest[2:]), "recursive=True" in self.path or "recursive=true" in self.path
            below = [
                entry for entry in _tree(folder) if entry["path"].startswith(f"{place}/" if place else "")
            ]
            depth = place.count("/") + 1 if place else 0
            shown = [entry for entry in below if deep or entry["path"].count("/") == depth]
            return self._answer(json.dumps(shown).encode())
        siblings = [{"rfilename": name} for name in files_in(folder)]
        return self._answer(json.dumps({"id": repository, "sha": sha, "siblings": siblings}).encode())

    def _answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self, code: str = "RevisionNotFound") -> None:
        self._answer(b"{}", 404, **{"X-Error-Code": code})

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _tree(folder: Path) -> list[dict[str, Any]]:
    """The entries of a repository, as the Hub describes them."""
    files = files_in(folder)
    folders = sorted({parent.as_posix() for name in files for parent in Path(name).parents} - {"."})
    return [
        *({"type": "directory", "path": name, "oid": "0", "size": 0} for name in folders),
        *(
            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0"}
            for name in files
        ),
    ]
