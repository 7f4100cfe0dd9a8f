"""Rewards over HTTP against a server that does as it is told."""

import http.server
import json
import socket
import threading
import time

import pytest

from tfrlhf.rewards import EndpointError
from tfrlhf.rewards import HTTPReward
from tfrlhf.rewards import endpoint

PROMPTS = ["a", "b", "c"]
RESPONSES = ["x", "好", "zzz"]


class Server:
    """Answers each request by the next of `answers`, then by lengths.

    An answer is (status, body), or a function of the connection.
    """

    def __init__(self):
        self.answers = []
        self.bodies = []
        self.headers = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                outer.bodies.append(body)
                outer.headers.append(dict(self.headers))
                if outer.answers:
                    answer = outer.answers.pop(0)
                    if callable(answer):
                        answer(self.connection)
                        return
                else:
                    scores = [len(text) for text in body["responses"]]
                    answer = 200, json.dumps({"scores": scores})
                self.send_response(answer[0])
                self.end_headers()
                self.wfile.write(answer[1].encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/score"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds between two attempts, none of them waited for."""
    waited = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


def hang_up(connection):
    connection.shutdown(socket.SHUT_RDWR)


def stall(connection):
    """Waits until the other side gives up."""
    connection.recv(1)


def test_scores_come_in_order_from_batches(server):
    reward = HTTPReward(server.url, batch_size=2, headers={"X-Key": "k"})
    assert reward(PROMPTS, RESPONSES, n=[1, 2, 3]) == [1.0, 1.0, 3.0]
    first, second = server.bodies
    assert first == {
        "prompts": ["a", "b"],
        "responses": ["x", "好"],
        "columns": {"n": [1, 2]},
    }
    assert second["responses"] == ["zzz"]
    assert second["columns"] == {"n": [3]}
    assert server.headers[0]["X-Key"] == "k"
    assert server.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "failure", [(500, ""), (503, "busy"), (429, ""), hang_up, stall]
)
def test_a_passing_failure_is_tried_again(server, waits, failure):
    server.answers = [failure, failure]
    reward = HTTPReward(server.url, timeout=1.0)
    assert reward(PROMPTS, RESPONSES) == [1.0, 1.0, 3.0]
    assert len(server.bodies) == 3
    assert waits == [0.5, 1.0]


def test_retries_come_to_an_end(server, waits):
    server.answers = [(500, "")] * 9
    with pytest.raises(EndpointError, match="answered 500.*, 4 times: check"):
        HTTPReward(server.url, retries=3)(PROMPTS, RESPONSES)
    assert len(server.bodies) == 4
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refused_request_is_not_sent_again(server, waits, status):
    server.answers = [(status, "no such key")]
    with pytest.raises(EndpointError, match=f"answered {status}.*no such key"):
        HTTPReward(server.url)(PROMPTS, RESPONSES)
    assert len(server.bodies) == 1
    assert waits == []


def test_no_server():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EndpointError, match="refused.*, 2 times"):
            HTTPReward(url, retries=1)(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("oops", "must answer with JSON .*Received: 'oops'"),
        ("[1, 2, 3]", "must answer with JSON"),
        ('{"score": [1, 2, 3]}', "must answer with JSON"),
        ('{"scores": [1, 2]}', "one score for each of 3 responses"),
        ('{"scores": 1}', "one score for each of 3 responses"),
        ('{"scores": [1, "2", 3]}', "Received as score 1: '2'"),
        ('{"scores": [1, 2, true]}', "Received as score 2: True"),
        ('{"scores": [NaN, 2, 3]}', "finite numbers.*score 0: nan"),
        ('{"scores": [1, 1e999, 3]}', "score 1: inf"),
        ('{"scores": [1, null, 3]}', "score 1: None"),
    ],
)
def test_answers_are_checked(server, answer, message):
    server.answers = [(200, answer)]
    with pytest.raises(EndpointError, match=message):
        HTTPReward(server.url)(PROMPTS, RESPONSES)
    assert len(server.bodies) == 1


def test_columns_that_json_cannot_hold(server):
    with pytest.raises(ValueError, match="cannot hold them.*set"):
        HTTPReward(server.url)(["a"], ["b"], x=[{1}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "file:///etc/hosts"}, "`url` must start with http"),
        ({"timeout": 0}, "`timeout` must be more than 0"),
        ({"retries": -1}, "`retries` must be at least 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        HTTPReward(**{"url": "http://localhost"} | settings)


def test_the_module_waits_by_the_clock():
    assert endpoint.time is time
