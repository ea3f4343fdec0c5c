"""`export --push` against a local server that speaks the Hub's HTTP interface: what arrives is the folder."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from mt2st.__main__ import main
from tests.helpers.trained_folder import write_run


class FakeHub(ThreadingHTTPServer):
    """Takes one repository's files; large ones by the LFS protocol, as the Hub does with safetensors."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.commits = 0
        self.tokens: set[str] = set()
        self.refuse = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *given: object) -> None:
        """Nothing on the terminal."""

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.tokens.add(self.headers.get("Authorization", ""))
        if hub.refuse:
            self.answer({"error": "you may not write there"}, 403)
        elif self.path == "/api/repos/create":
            hub.made = json.loads(body)
            self.answer({"url": f"{hub.address}/me/model"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.objects[value["oid"]]
            hub.commits += 1
            self.answer({"commitUrl": f"{hub.address}/me/model/commit/1", "commitOid": "1", "pullRequestUrl": None})
        else:
            self.answer({"error": self.path}, 404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        self.answer({})

    def do_GET(self) -> None:
        self.answer({"error": "Entry not found"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command != "HEAD" else b"")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, beside HTTP
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def push(run: Path, out: Path, name: str = "me/model") -> int:
    return main(["export", str(run), "--format", "safetensors", "--out", str(out), "--push", name])


def test_the_folder_arrives_whole_in_one_commit(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert push(write_run(tmp_path / "run"), out) == 0
    assert f"pushed: {hub.address}/me/model/commit/1" in capsys.readouterr().out
    assert hub.made["name"] == "model"
    assert hub.made["organization"] == "me"
    assert hub.made["visibility"] == "private"
    assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert "weights.safetensors" in hub.files
    assert hub.commits == 1
    assert "Bearer hf_of_the_test" in hub.tokens


def test_a_refusal_is_one_line_and_the_folder_stays(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuse = True
    assert push(write_run(tmp_path / "run"), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: me/model was not pushed (")
    assert error.count("\n") == 1
    assert "hf_of_the_test" not in error
    assert (tmp_path / "out" / "model.json").is_file()


def test_a_hub_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeHub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server.server_close()
    assert push(write_run(tmp_path / "run"), tmp_path / "out") == 2
    assert "was not pushed ([Errno 111] Connection refused); " in capsys.readouterr().err


def test_a_wrong_name_is_known_before_anything_is_written(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    for name in ("model", "a/b/c", "me/mo del"):
        assert push(run, tmp_path / "out", name) == 2
        assert "is no name on the Hub" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not hub.made
