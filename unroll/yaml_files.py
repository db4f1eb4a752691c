"""YAML from anywhere: recipes, run folders, spaces and labs are all read here.

A small part of YAML, safely: lines of ``name: value``, lists, text, whole numbers, decimals, true and false, and nothing.
No dates, no tags of other kinds, and no aliases, by which a few lines could stand for gigabytes. A value that YAML 1.1
reads as a date, in base 2, 8, 16 or 60, or with ``_`` is text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from unroll.errors import UnrollError, quoted
from unroll.files import refuse_special

MOST_BYTES = 100_000
DEEPEST = 20
WORDS: dict[str, bool | None] = {
    **{
        form: value
        for word, value in yaml.SafeLoader.bool_values.items()
        for form in (word, word.title(), word.upper())
    },
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,299})")
# Every text that is a decimal here is one in YAML 1.1 too: whatever PyYAML writes without quotation marks reads back as text.
DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
UNHELD = re.compile("[\x00\ud800-\udfff]")  # by names of files, and by text in UTF-8
SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

TAGS = {
    kind: f"tag:yaml.org,2002:{name}"
    for kind, name in ((str, "str"), (int, "int"), (float, "float"), (bool, "bool"), (type(None), "null"))
}


def plain_value(text: str) -> Any:
    """What a word without quotation marks stands for: a number, true or false, None, or itself.

    >>> [plain_value(text) for text in ("3", "0.5", "yes", "~", "2024-01-31", "0x10", "1_5", "1:30")]
    [3, 0.5, True, None, '2024-01-31', '0x10', '1_5', '1:30']
    """
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text)
    return float(text.lower().replace(".", "")) if SPECIAL.fullmatch(text) else text


def read_yaml(path: Path, what: str, error: type[UnrollError]) -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        what: the file is, for messages.
        error: the class of all that is raised.

    Raises:
        error: the file does not exist, cannot be read, is too large, or holds anything but fields.
    """
    place = f"{what} {path}"
    try:
        refuse_special(path)
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise error(f"{place} does not exist") from None
    except (OSError, ValueError) as reason:  # ValueError: no UTF-8, or a path with NUL in it
        raise error(f"{place} cannot be read: {getattr(reason, 'strerror', None) or reason}") from None
    if len(content) > MOST_BYTES:
        raise error(f"{place} is larger than {MOST_BYTES:,} bytes; expected a few lines of the form 'field: value'")
    try:
        node = _Loader(text).get_single_node()
        found = None if node is None else _value(node)
    except yaml.YAMLError as reason:
        mark = getattr(reason, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(reason, "problem", None) or reason).split())
        raise error(f"{place}{line}: not valid YAML ({problem})") from None
    if not isinstance(found, dict):
        raise error(f"{place}: expected lines of the form 'field: value'")
    return found


class _Loader(yaml.SafeLoader):
    """Text -> nodes, with plain words as `plain_value` reads them."""

    _depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return TAGS[type(plain_value(value))]
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _error(f"*{event.anchor} stands for something else; write that out", event)
        if self._depth == DEEPEST:
            raise _error(f"nested more than {DEEPEST} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _value(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a list or a mapping cannot be the name of a field", key)
            if key.value in found:
                raise _error(f"{quoted(key.value)} stands twice", key)
            found[key.value] = _value(value)
        return found
    if isinstance(node, yaml.ScalarNode):
        value = node.value if node.tag == TAGS[str] else plain_value(node.value)
        if isinstance(value, str) and UNHELD.search(value):
            raise _error("NUL or half of a character, which no name of a file can hold", node)
        if TAGS[type(value)] == node.tag:
            return value
    raise _error(f"a value with the tag {node.tag} that it does not fit, or that is unknown here", node)


def _error(problem: str, where: Any) -> ComposerError:
    return ComposerError(None, None, problem, where.start_mark)
