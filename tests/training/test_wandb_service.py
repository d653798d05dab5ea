"""Whether W&B can be reached is known before W&B is asked."""

import socket
import threading
from pathlib import Path

import pytest

from mulligan.training.wandb_service import _is_in_netrc, _out_of_reach


def test_a_service_that_refuses_or_never_answers() -> None:
    assert "127.0.0.1:9 is out of reach ([Errno 111] Connection refused)" in str(
        _out_of_reach("http://127.0.0.1:9", 5.0)
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        reason = _out_of_reach(f"http://127.0.0.1:{server.getsockname()[1]}", 0.2)
    assert "timed out" in str(reason)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_any_answer_will_do(status: str) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        assert _out_of_reach(f"http://127.0.0.1:{server.getsockname()[1]}", 5.0) is None
        thread.join()


def test_a_key_may_stand_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _is_in_netrc("https://api.example.org")
    (tmp_path / "netrc").write_text("machine api.example.org login user password secret\n")
    assert _is_in_netrc("https://api.example.org")
    assert not _is_in_netrc("https://other.example.org")
