"""Serving the demo: to this machine alone unless told, nothing from other hosts, nothing kept.

The page may ask its own server for what it needs to be shown and to call its functions, and for nothing else: uploads
to files, reading of files, proxying and whatever else the web framework offers are not served.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any

from benchmarks.demo.functions import Demo
from benchmarks.demo.options import Options
from mt2st.errors import Mt2stError

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_API = "/gradio_api"
_EXACT = {
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *(f"{_API}/{name}" for name in ("info", "startup-events", "app_id", "queue/join", "queue/data", "reset", "cancel")),
}
_FILES = ("/assets/", "/static/", "/svelte/")
_UNDER = (*_FILES, f"{_API}/heartbeat/")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio compiles its templates in the browser
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_NOT_STORED = (b"cache-control", b"no-store")
_BESIDES = 64_000  # bytes of a request beside its picture
_QUIT_SECONDS = 2  # for requests that are under way when the server ends


class Guard:
    """An ASGI application around another one: known paths, small requests, and a policy that names no other host.

    Args:
        app: what is guarded.
        most_bytes: largest body of a request; it is read whole before the application sees any of it.
    """

    def __init__(self, app: Any, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http" or not _served(scope["path"]):
            await _refuse(scope, send, 404, b"not part of this demo")
            return
        body = await self._body(receive) if scope["method"] == "POST" else None
        if scope["method"] == "POST" and body is None:
            await _refuse(scope, send, 413, b"larger than this demo takes")
            return
        # The files of the framework may stay in the browser's cache; what people send and get back may not.
        ours = _HEADERS if scope["path"].startswith(_FILES) else (*_HEADERS, _NOT_STORED)
        replayed = False

        async def again() -> MutableMapping[str, Any]:
            nonlocal replayed
            if body is None or replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in ours}
                others = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
                message = {**message, "headers": [*others, *ours]}
            await send(message)

        await self._app(scope, again, with_headers)

    async def _body(self, receive: _Receive) -> bytes | None:
        """The body of a request; None = it is too large, or its sender went away."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            size += len(message.get("body", b""))
            if size > self._most:
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)


def _served(path: str) -> bool:
    return ".." not in path and (path in _EXACT or path.rstrip("/") in _EXACT or path.startswith(_UNDER))


async def _refuse(scope: _Scope, send: _Send, status: int, why: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why})


def application(demo: Demo) -> Any:
    """The demo as an ASGI application.

    Set `GRADIO_TEMP_DIR` before, to a folder that is deleted afterwards; nothing is written to it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import gradio as gr
    from fastapi import FastAPI

    from benchmarks.demo.page import build, style

    # Fonts by name are those of the machine; Gradio's own default asks a host for them.
    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build(demo),
        path="/",
        server_name=demo.options.host,
        server_port=demo.options.port,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        show_error=False,
        enable_monitoring=False,
        theme=gr.themes.Default(primary_hue="blue", font=sans, font_mono=mono),  # white text on orange is hard to read
        css=style(),
    )
    # A picture is a third longer as text.
    return Guard(app, demo.options.most_bytes * 4 // 3 + _BESIDES)


def serve(options: Options) -> None:
    """Load the runs, print the address and serve until Ctrl-C or SIGTERM.

    Raises:
        Mt2stError: a run cannot be shown, the address is taken, or the extra demo is not installed.
    """
    listening = _listening(options)
    with listening, tempfile.TemporaryDirectory(prefix="mt2st-demo-") as place:
        os.environ["GRADIO_TEMP_DIR"] = place
        try:
            import uvicorn

            app = application(Demo(options))
        except ModuleNotFoundError as error:
            raise Mt2stError(f"demo needs the package {error.name}: pip install -e '.[demo]'") from None
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_QUIT_SECONDS, access_log=False)
        sys.stdout.write(f"{_told(listening)}\n")
        sys.stdout.flush()
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn hands the signal on once it has ended well
            sys.stdout.write("ended\n")


def _listening(options: Options) -> socket.socket:
    """A socket at the address, before anything is loaded."""
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((options.host, options.port), family=family, backlog=64)
    except OSError as error:
        raise Mt2stError(
            f"cannot listen on {options.host}:{options.port} ({error.strerror or error}); give another --port, or 0 "
            "for any free one"
        ) from None


def _told(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    who = "this machine alone" if ip_address(host).is_loopback else "everybody who reaches this machine"
    return f"demo: http://{shown}:{port} for {who}; Ctrl-C ends it"
