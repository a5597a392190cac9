"""A real S3 on the loopback, which can be made to fail, and to lose and damage what it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class S3Server:
    """Moto's S3, served by a thread of this process."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and path of each, in order."""
        self.answer: Callable[[str, str], str | None] = lambda _method, _path: None
        """A status such as ``500 Internal Error`` instead of an answer; ``None``: the answer."""
        self.knows_conditions = True
        """Whether it heeds If-None-Match, as not all servers do."""
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.port = self._server.server_port
        self._begin()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know to use it."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def make_bucket(self, name: str) -> str:
        """An empty bucket; its name."""
        self._backend().create_bucket(name, "us-east-1")
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """All that a bucket holds."""
        found = self._backend().list_objects(self._backend().head_bucket(bucket), None, None, None, None)
        return {key.name: bytes(key.value) for key in found[0]}

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Put an object behind everybody's back."""
        self._backend().put_object(bucket, name, content)

    def delete(self, bucket: str, name: str) -> None:
        self._backend().delete_object(bucket, name)

    def stop(self) -> None:
        """From now on nothing answers at its port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def start(self) -> None:
        """Answer again, with all that was there."""
        self._server = make_server("127.0.0.1", self.port, self._serve, threaded=True)
        self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if not self.knows_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        status = self.answer(method, path)
        if status is None:
            return self._application(environ, start_response)
        start_response(status, [("Content-Type", "application/xml")])
        code = status.partition(" ")[2].replace(" ", "")
        return [f"<Error><Code>{code}</Code><Message>It was made to say so.</Message></Error>".encode()]

    @staticmethod
    def _backend() -> Any:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
