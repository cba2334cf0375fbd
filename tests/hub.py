"""A hub on a loopback port: enough of the API for `huggingface_hub` and `datasets`, over folders on disk.

Uploads need a token. Large files come by the protocol of Git LFS, the others within their commit.
"""

import base64
import hashlib
import json
import os
import re
import shutil
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
TOKEN = "hf_of_a_test"
# As on the Hub, by the name of the file.
LARGE = (".safetensors", ".parquet", ".png")


class Hub:
    """Repositories in memory: `commit` sets the head of a branch, `pulled` lists the files that were sent.

    Attributes:
        url: what HF_ENDPOINT is set to for other processes.
        private: the repositories that only the owner of `TOKEN` may see.
        objects: the large files that were uploaded, by sha256.
    """

    def __init__(self, url: str, uploads: Path) -> None:
        self.url = url
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self._uploads = uploads
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

    def knows(self, repository: str) -> bool:
        """Whether there is a repository of that name."""
        return any(name == repository for name, _ in self._branches)

    def branch(self, repository: str, name: str) -> bool:
        """Make a branch of the head of the main one; whether there was none of that name."""
        if (repository, name) in self._branches:
            return False
        self._branches[repository, name] = self._branches[repository, BRANCH]
        return True

    def create(self, repository: str, *, private: bool) -> bool:
        """Make a repository as the Hub makes one; whether there was none of that name."""
        if self.knows(repository):
            return False
        if private:
            self.private.add(repository)
        folder = self._uploads / str(len(self._commits))
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.commit(repository, folder)
        return True

    def change(self, repository: str, branch: str, operations: list[dict[str, Any]]) -> str:
        """Commit the operations of an upload."""
        folder = self._uploads / str(len(self._commits))
        shutil.copytree(self._commits[repository, self._branches[repository, branch]], folder)
        for operation in operations:
            value = operation["value"]
            target = folder / value["path"] if "path" in value else folder
            if operation["key"] == "deletedFile":
                target.unlink()
            elif operation["key"] in ("file", "lfsFile"):
                large = operation["key"] == "lfsFile"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(
                    self.objects[value["oid"]] if large else base64.b64decode(value["content"])
                )
        return self.commit(repository, folder, branch)

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
    url = f"http://127.0.0.1:{server.server_port}"
    hub = server.hub = Hub(url, cache / "uploads")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(cache / "token"),
    }
    patches = [
        patch.multiple(huggingface_hub.constants, **constants),
        patch.dict(os.environ, {"HF_TOKEN": TOKEN}),
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
        if len(parts) == 2:
            # `huggingface_hub` looks up the names of coding agents; nothing here needs them.
            return self._answer(b"{}")
        kind, owner, name, *rest = (
            parts[1:] if api else parts if parts[0] == "datasets" else ["models", *parts]
        )
        repository = f"datasets/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}"
        revision = rest[1] if len(rest) > 1 else BRANCH
        if repository in hub.private and not self._has_token():
            return self._refuse("RepoNotFound", 401)
        found = hub.find(repository, revision)
        if found is None:
            return self._refuse("RevisionNotFound" if hub.knows(repository) else "RepoNotFound")
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
        hub: Hub = self.server.hub
        body = self._body()
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/") and "/paths-info/" in path:
            return self._describe_paths(path, parse_qs(body.decode()).get("paths", []))
        if path == "api/validate-yaml":
            return self._answer(b"{}")
        if not self._has_token():
            return self._refuse("", 401)
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            repository = f"datasets/{name}" if asked["type"] == "dataset" else name
            made = hub.create(repository, private=asked.get("visibility") == "private")
            return self._answer(json.dumps({"url": f"{hub.url}/{repository}"}).encode(), 200 if made else 409)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._answer_batch(json.loads(body)["objects"])
        _, kind, owner, name, what, revision = path.split("/", 5)
        repository = f"datasets/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}"
        if what == "branch":
            return self._answer(b"{}", 200 if hub.branch(repository, revision) else 409)
        if what == "preupload":
            return self._choose_modes([file["path"] for file in json.loads(body)["files"]])
        assert what == "commit", path
        sha = hub.change(repository, revision, [json.loads(line) for line in body.splitlines()])
        url = f"{hub.url}/{repository}/commit/{sha}"
        return self._answer(json.dumps({"commitUrl": url, "commitOid": sha}).encode())

    def do_PUT(self) -> None:
        """The content of a large file."""
        data = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.hub.objects[oid] = data
        return self._answer(b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _describe_paths(self, path: str, wanted: list[str]) -> None:
        _, kind, owner, name, _, revision = path.split("/", 5)
        found = self.server.hub.find(
            f"{kind}/{owner}/{name}" if kind == "datasets" else f"{owner}/{name}", revision
        )
        if found is None:
            return self._refuse()
        entries = [entry for entry in _tree(found[1]) if entry["path"] in wanted]
        return self._answer(json.dumps(entries).encode())

    def _choose_modes(self, paths: list[str]) -> None:
        files = [
            {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            for path in paths
        ]
        return self._answer(json.dumps({"files": files}).encode())

    def _answer_batch(self, objects: list[dict[str, Any]]) -> None:
        url = self.server.hub.url
        answers = [
            {**one, "actions": {"upload": {"href": f"{url}/lfs/{one['oid']}", "header": {}}}}
            for one in objects
        ]
        return self._answer(json.dumps({"transfer": "basic", "objects": answers}).encode())

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
        described = {
            "id": repository,
            "sha": sha,
            "siblings": siblings,
            "private": repository in self._private(),
        }
        return self._answer(json.dumps(described).encode())

    def _private(self) -> set[str]:
        return {name.removeprefix("datasets/") for name in self.server.hub.private}

    def _answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: str = "RevisionNotFound", status: int = 404) -> None:
        self._answer(b"{}", status, **({"X-Error-Code": code} if code else {}))

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
