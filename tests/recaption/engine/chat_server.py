"""A small HTTP server that speaks as much of the chat API as the engine asks for, on loopback."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

#: What the server does with the n-th request (from 0) of a key.
Behaviour = Callable[["Handler", str, int], None]


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def do_GET(self) -> None:
        if not self.path.endswith("/models"):
            return self.reply(404, {"error": {"message": self.path}})
        data = [{"id": name, "object": "model"} | self.server.card for name in self.server.models]
        return self.reply(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = body["messages"][-1]["content"][-1]["text"]  # tests ask for the key itself
        with self.server.lock:
            number = sum(other["key"] == key for other in self.server.asked)
            self.server.asked.append(
                {"key": key, "body": body, "headers": dict(self.headers.items())}
            )
            self.server.num_now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.num_now)
        try:
            self.server.behaviour(self, key, number)
        finally:
            with self.server.lock:
                self.server.num_now -= 1

    def reply(self, status: int, tree: Any, **headers: str) -> None:
        content = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def caption(self, text: str) -> None:
        self.reply(200, completion(text))

    def refuse(self, status: int, message: str = "no", code: str = "", **headers: str) -> None:
        self.reply(status, {"error": {"message": message, "code": code}}, **headers)

    def hang_up(self, in_the_middle: bool = False) -> None:
        if in_the_middle:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": ')
            self.wfile.flush()
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


class ChatServer(ThreadingHTTPServer):
    """Use as a context manager.

    Args:
        behaviour: what becomes of requests.
        port: 0 takes a free one.
        models: that it lists.
        card: what it says of each model, besides.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        behaviour: Behaviour = lambda handler, key, number: handler.caption(f"Caption of {key}."),
        port: int = 0,
        models: tuple[str, ...] = ("some/model",),
        **card: str,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour, self.models, self.card = behaviour, models, card
        self.lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.num_now = self.most_at_once = 0
        self._connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def __exit__(self, *error: object) -> None:
        """As if the process was killed: connections that wait for a next request end, too."""
        self.shutdown()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # closed before
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
