"""A reward behind an address."""

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tfrlhf.rewards.arguments import at_least
from tfrlhf.rewards.arguments import more_than

FIRST_WAIT = 0.5
SHOWN = 200


class EndpointError(RuntimeError):
    """An endpoint could not be reached, or answered with something else."""


class HTTPReward:
    """Scores responses by a POST request.

    Sends `{"prompts": [...], "responses": [...], "columns": {name: [...]}}`
    as JSON and expects `{"scores": [...]}`, one number a response. A request
    is sent again, after 0.5 · 2^k seconds, where there was no answer in time
    or one of status 429 or 5xx; nothing else is.

    Args:
        url: http:// or https://.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again.
        batch_size: responses of a request.
        headers: further headers, such as an authorisation.

    Raises:
        EndpointError: at the call, where no request led to scores.

    Example:
        >>> reward = HTTPReward("http://localhost:8000/score", timeout=5.0)
        >>> reward(["Say hi."], ["Hi!"])
        [0.9]
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        retries: int = 3,
        batch_size: int = 64,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                "`url` must start with http:// or https://. Received: "
                f"url={url!r}"
            )
        more_than("timeout", timeout, 0)
        at_least("retries", retries, 0)
        at_least("batch_size", batch_size, 1)
        self.url = url
        self.timeout = timeout
        self.retries = retries
        self.batch_size = batch_size
        self.headers = {"Content-Type": "application/json", **(headers or {})}

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response."""
        scores: list[float] = []
        for start in range(0, len(responses), self.batch_size):
            rows = slice(start, start + self.batch_size)
            body = {
                "prompts": prompts[rows],
                "responses": responses[rows],
                "columns": {name: x[rows] for name, x in columns.items()},
            }
            answer = self._answer(_to_json(body))
            scores += self._scores(answer, len(body["responses"]))
        return scores

    def _answer(self, body: bytes) -> bytes:
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
            request = urllib.request.Request(
                self.url, data=body, headers=self.headers, method="POST"
            )
            try:
                with urllib.request.urlopen(
                    request, timeout=self.timeout
                ) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"answered {error.code} {error.reason}"
                    said = error.read(SHOWN).decode("utf-8", "replace")
                if error.code != 429 and error.code < 500:
                    raise EndpointError(
                        f"{self.url} {reason}: {said!r}."
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                reason = f"did not answer ({_reason(error)})"
        raise EndpointError(
            f"{self.url} {reason}, {self.retries + 1} times: check that the "
            "service runs, or raise `timeout` or `retries`."
        )

    def _scores(self, answer: bytes, rows: int) -> list[float]:
        try:
            scores = json.loads(answer)["scores"]
        except (ValueError, KeyError, TypeError) as error:
            shown = answer[:SHOWN].decode("utf-8", "replace")
            raise EndpointError(
                f'{self.url} must answer with JSON {{"scores": [...]}}. '
                f"Received: {shown!r}"
            ) from error
        if not isinstance(scores, list) or len(scores) != rows:
            raise EndpointError(
                f"{self.url} must answer with a list of one score for each of "
                f"{rows} responses. Received: {str(scores)[:SHOWN]}"
            )
        for row, score in enumerate(scores):
            if not _is_number(score):
                raise EndpointError(
                    f"{self.url} must answer with finite numbers. Received as "
                    f"score {row}: {score!r}"
                )
        return [float(score) for score in scores]


def _to_json(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body).encode()
    except TypeError as error:
        raise ValueError(
            "HTTPReward sends the prompts' columns as JSON, which cannot hold "
            f"them ({error}): leave the column out, or make it text."
        ) from error


def _is_number(score: Any) -> bool:
    return (
        isinstance(score, int | float)
        and not isinstance(score, bool)
        and math.isfinite(score)
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
