"""Conversations as lists of messages: which are well formed, and their parts.

A message is {"role", "content"}, as chat templates take them. Knows roles and
their order; no template and no tokens.
"""

import reprlib
from typing import Any
from typing import TypeAlias

from tfrlhf.data.records import DataError
from tfrlhf.data.records import check_text

Message: TypeAlias = dict[str, Any]

# Who may speak after whom; None is the beginning.
_FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_ROLES = ("system", "user", "assistant", "tool")
# The names of other formats.
_OTHER_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "developer": "system",
    "function_response": "tool",
    "observation": "tool",
}
_OTHER_KEYS = {"from": "role", "value": "content"}


def is_messages(value: Any) -> bool:
    """Tells whether a field was meant as a list of messages."""
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def check_messages(
    where: str, field: str, value: Any, last: tuple[str, ...]
) -> list[Message]:
    """Returns the messages of a field if their roles and texts are right.

    Args:
        where: The place of the record, for the messages of errors.
        field: The name of the field.
        value: {"role", "content"} dicts, or ShareGPT's {"from", "value"}.
        last: The roles that the last message may have.

    Returns:
        New dicts with "role" and "content"; other keys, such as "tool_calls",
        are kept.

    Raises:
        DataError: No list of messages, an unknown role, a role that may not
            follow the one before it, or a content that is no text.
    """
    if not is_messages(value):
        raise DataError(
            f"{where}: `{field}` must be a list of messages, not "
            f'{reprlib.repr(value)}: write [{{"role": "user", "content": '
            '"..."}, ...].'
        )
    messages: list[Message] = []
    before: str | None = None
    for index, item in enumerate(value):
        name = f"{field}[{index}]"
        message = _message(where, name, item)
        if message["role"] not in _FOLLOWS[before]:
            place = f"after {before!r}" if before else "first"
            allowed = " or ".join(repr(role) for role in _FOLLOWS[before])
            raise DataError(
                f"{where}: `{name}.role` is {message['role']!r}, which may not "
                f"come {place}: put {allowed} there."
            )
        before = message["role"]
        messages.append(message)
    if before not in last:
        raise DataError(
            f"{where}: `{field}` ends with the role {before!r}: its last "
            f"message must be from {' or '.join(repr(role) for role in last)}."
        )
    return messages


def as_messages(value: Any) -> list[Message]:
    """The messages of a prompt: itself, or one from the user."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    return list(value)


def response_messages(
    where: str,
    field: str,
    prompt: list[Message],
    value: Any,
    may_be_blank: bool = False,
) -> list[Message]:
    """Returns a prompt with the response that a field holds.

    Args:
        where: The place of the record.
        field: The name of the response's field.
        prompt: Checked messages that end before an assistant's turn.
        value: The assistant's text, or messages that go on after the prompt.
        may_be_blank: Whether the text may be without one.

    Raises:
        DataError: As `check_messages`.
    """
    if isinstance(value, str):
        check_text(where, field, value, may_be_blank)
        return [*prompt, {"role": "assistant", "content": value}]
    if not is_messages(value):
        raise DataError(
            f"{where}: `{field}` must be a string or a list of messages, not "
            f"{reprlib.repr(value)}: write the assistant's answer."
        )
    added = [
        _message(where, f"{field}[{index}]", item)
        for index, item in enumerate(value)
    ]
    whole = added if added[: len(prompt)] == prompt else [*prompt, *added]
    return check_messages(where, field, whole, ("assistant",))


def shared_messages(where: str, chosen: Any, rejected: Any) -> list[Message]:
    """Returns the beginning that two conversations have in common.

    Raises:
        DataError: They share none that an assistant could go on from.
    """
    first = check_messages(where, "chosen", chosen, ("assistant",))
    second = check_messages(where, "rejected", rejected, ("assistant",))
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    while count and first[count - 1]["role"] not in ("user", "tool"):
        count -= 1
    if not count or first == second or count == min(len(first), len(second)):
        raise DataError(
            f"{where}: `chosen` and `rejected` must begin with the same "
            "prompt and end with different answers: correct one of them or "
            "delete the record."
        )
    return first[:count]


def _message(where: str, name: str, item: Any) -> Message:
    if not isinstance(item, dict):
        raise DataError(
            f"{where}: `{name}` must be an object with `role` and `content`, "
            f"not {reprlib.repr(item)}: correct it."
        )
    message: Message = {}
    for key, part in item.items():
        if part is not None:  # tables have every key of every row
            message[_OTHER_KEYS[key] if key in _OTHER_KEYS else key] = part
    role = message.get("role")
    role = _OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in _ROLES:
        raise DataError(
            f"{where}: `{name}.role` is {reprlib.repr(role)}: it must be one "
            f"of {', '.join(_ROLES)}."
        )
    calls = role == "assistant" and bool(message.get("tool_calls"))
    content = message.get("content", "")
    check_text(where, f"{name}.content", content, may_be_blank=calls)
    return message | {"role": role, "content": content}
