"""An HTTP server on 127.0.0.1 that serves a few files, and misbehaves on request."""

import threading
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MisbehavingServer(ThreadingHTTPServer):
    """Serves ``files`` (path → bytes); each request for a path takes the next of its ``faults``, then "ok".

    Faults: cut, stall, drip, wrong, html, 404, 503, no_length, cut_no_length, ignore_range, wrong_range, 416,
    too_long, redirect (to ``redirect_to``), silent (no answer at all). ``requests`` is what was asked, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.requests: list[tuple[str, str | None]] = []
        self.redirect_to = ""
        self.released = threading.Event()  # ends every stall
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: MisbehavingServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        faults = self.server.faults[self.path]
        fault = faults.popleft() if faults else "ok"
        content = self.server.files.get(self.path)
        if content is None or fault == "404":
            self.send_error(404)
        elif fault in ("503", "416"):
            self.send_error(int(fault))
        elif fault == "html":
            self.answer(b"<!DOCTYPE html><title>Please log in</title>", content_type="text/html; charset=utf-8")
        elif fault == "redirect":
            self.send_response(302)
            self.send_header("Location", self.server.redirect_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "silent":
            self.server.released.wait(30)
        elif fault == "wrong":
            self.answer(bytes(octet ^ 0x55 for octet in content))
        elif fault == "too_long":
            self.answer(content + b"more", length=False)
        else:
            self.serve_part(content, wanted, fault)

    def serve_part(self, content: bytes, wanted: str | None, fault: str) -> None:
        if wanted is None or fault == "ignore_range":
            self.answer(content, fault)
            return
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if fault == "wrong_range":
            first += 1
        self.answer(content[first:], fault, status=206, span=f"bytes {first}-{len(content) - 1}/{len(content)}")

    def answer(self, body, fault="ok", *, status=200, content_type="application/octet-stream", span="", length=True):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("ETag", '"v1"')
        if length and fault not in ("no_length", "cut_no_length"):
            self.send_header("Content-Length", str(len(body)))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if fault in ("cut", "cut_no_length", "stall"):
            body = body[: len(body) // 2]
        self.wfile.write(body[:1] if fault == "drip" else body)
        self.wfile.flush()
        if fault == "stall":
            self.server.released.wait(30)
        elif fault == "drip":
            for octet in body[1:]:
                if self.server.released.wait(0.05):
                    break
                self.wfile.write(bytes([octet]))

    def log_message(self, format, *args) -> None:
        """Not to stderr."""
