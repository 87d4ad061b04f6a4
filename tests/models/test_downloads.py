import http.server
import ssl
import threading
import time
import urllib.error

import pytest
import torch

from depthbal.errors import ConfigError
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.models.downloads import downloading, probe

NOWHERE = "http://127.0.0.1:9/weights.pth"  # the discard port: nobody listens


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Send every download to a proxy that refuses, with empty caches."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("depthbal.models.downloads.try_to_load_from_cache", lambda **kwargs: None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNetMFF(weights="imagenet"),
        lambda: SmpDepth(encoder="mobilenet_v2", weights="imagenet"),
        lambda: SmpDepth(encoder="tu-resnet18", weights="imagenet"),
    ],
    ids=["torchvision", "smp", "timm"],
)
def test_without_a_network_the_two_other_ways_are_named_at_once(no_network, make):
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"(?i)'imagenet.*path of an encoder.*weights=None"):
        make()
    assert time.monotonic() - start < 10


def test_a_failure_in_the_middle_of_a_download_is_the_same_error():
    with (
        pytest.raises(ConfigError, match=r"connection reset.*weights=None"),
        downloading("imagenet", NOWHERE, cached=True),
    ):
        raise ConnectionResetError("connection reset by peer")


def test_what_is_cached_needs_no_network():
    with downloading("imagenet", NOWHERE, cached=True):
        pass


def test_any_answer_counts_as_a_network():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.timeout = 10
    thread = threading.Thread(target=server.handle_request)  # answers 501 to any method
    thread.start()
    probe(f"http://127.0.0.1:{server.server_port}/")
    thread.join()
    server.server_close()


def test_an_unknown_certificate_is_left_to_the_downloading_library(monkeypatch):
    def distrust(*args, **kwargs):
        raise urllib.error.URLError(ssl.SSLCertVerificationError("unknown issuer"))

    monkeypatch.setattr("urllib.request.OpenerDirector.open", distrust)
    probe("https://example.org")
