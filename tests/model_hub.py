"""A model hub in this process: as much of the Hub's HTTP interface as huggingface_hub asks for.

Files are kept whole in memory; none goes by LFS.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What it holds, and what it was asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.is_private: dict[str, bool] = {}  # by repository
        self.files: dict[str, dict[str, bytes]] = {}  # by repository: of its last commit
        self.messages: list[str] = []  # of the commits
        self.sent: list[str] = []  # paths of files that were asked for

    def commit_id(self, repository: str) -> str:
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = self.files[repository]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                assert (line["key"], value["encoding"]) == ("file", "base64")
                files[value["path"]] = base64.b64decode(value["content"])


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serves an empty hub on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[4:5] == ["tree"]:
                files = hub.files["/".join(parts[2:4])].items()
                described = ((name, len(content)) for name, content in files)
                row = {"type": "file", "oid": ""}
                self._answer([row | {"path": name, "size": size} for name, size in described])
            elif parts[:2] == ["api", "models"]:
                self._describe("/".join(parts[2:4]))
            else:
                self._send_file("/".join(parts[:2]), "/".join(parts[4:]))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[1:] == ["repos", "create"]:
                asked = json.loads(body)
                repository = f"{asked['organization']}/{asked['name']}"
                hub.is_private[repository] = asked["private"]
                hub.files.setdefault(repository, {".gitattributes": b""})
                self._answer({"url": f"{hub.url}/{repository}"})
            elif parts[1:] == ["validate-yaml"]:
                self._answer({"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                names = [file["path"] for file in json.loads(body)["files"]]
                regular = {"uploadMode": "regular", "shouldIgnore": False}
                self._answer({"files": [{"path": name, **regular} for name in names]})
            else:
                repository = "/".join(parts[2:4])
                hub.commit(repository, [json.loads(line) for line in body.splitlines()])
                oid = hub.commit_id(repository)
                url = f"{hub.url}/{repository}/commit/{oid}"
                self._answer({"commitUrl": url, "commitOid": oid, "pullRequestUrl": None})

        def _describe(self, repository: str) -> None:
            if repository not in hub.files:
                self._answer({"error": "Repository not found"}, 404, "RepoNotFound")
                return
            siblings = [{"rfilename": name} for name in hub.files[repository]]
            sha = hub.commit_id(repository)
            self._answer({"id": repository, "sha": sha, "siblings": siblings})

        def _send_file(self, repository: str, name: str) -> None:
            content = hub.files.get(repository, {}).get(name)
            if content is None:
                self._answer({"error": "Entry not found"}, 404, "EntryNotFound")
                return
            if self.command == "GET":
                hub.sent.append(name)
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit_id(repository))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def _answer(self, tree: Any, status: int = 200, error: str = "") -> None:
            content = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
