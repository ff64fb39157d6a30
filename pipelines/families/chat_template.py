"""Reads a chat template of jinja: which words it has, and which message stands where. Nothing of it is run.

What is read has the forms in which templates for rerankers are published: expressions that give a message as it is, and
names for them. Anything else could change a text (`{{ query | trim }}`), and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from ..errors import ModelRefusedError

QUERY, DOCUMENT, INSTRUCTION = "\0query\0", "\0document\0", "\0system\0"
"""Stand in a template's words for the messages with these roles; no text of a template has a NUL."""
SAME = ("eq", "equalto", "==")
"""What jinja's test of equality is called."""


@dataclass(frozen=True, slots=True)
class Message:
    """The content of the first message with a role."""

    role: str
    otherwise: str | None = None
    """What stands there where no message has the role; None for nothing."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What a chat template makes of a query, a document and an instruction."""

    words: str
    """With QUERY, DOCUMENT and INSTRUCTION at their places."""
    words_without_instruction: str
    """The same without what `{% if instruction %}` holds."""
    default_instruction: str | None
    """What stands for the instruction where none is given."""


def read_chat_template(text: str) -> ChatTemplate:
    """Raises ModelRefusedError for what is no template, and for one that does more than to put messages into words."""
    try:
        # The settings of transformers, which decide what becomes of white space.
        tree = Environment(trim_blocks=True, lstrip_blocks=True).parse(text)
    except TemplateSyntaxError as error:
        raise ModelRefusedError(f"the chat template is no template of jinja: {error}") from None
    reading = Reading()
    whole = reading.words(tree.body, with_instruction=True)
    without = reading.words(tree.body, with_instruction=False)
    return ChatTemplate(whole, without, reading.default_instruction)


class Reading:
    """The names that a template has given to messages so far."""

    def __init__(self) -> None:
        self.named: dict[str, Message] = {}
        self.default_instruction: str | None = None

    def words(self, body: list[nodes.Node], with_instruction: bool) -> str:
        """The words of some statements."""
        words = []
        for node in body:
            match node:
                case nodes.Assign(target=nodes.Name(name=name), node=expression):
                    self.named[name] = self.message(expression)
                case nodes.If(test=test, body=inner, elif_=[], else_=[]) if self.is_instruction(test):
                    words.append(self.words(inner, with_instruction) if with_instruction else "")
                case nodes.Output(nodes=parts):
                    words += [self.part(part) for part in parts]
                case _:
                    raise unread(node)
        return "".join(words)

    def is_instruction(self, test: nodes.Node) -> bool:
        """Whether a condition asks for an instruction."""
        return isinstance(test, nodes.Name) and self.named.get(test.name) == Message("system")

    def part(self, part: nodes.Node) -> str:
        """A text, or the mark of a message."""
        if isinstance(part, nodes.TemplateData):
            return part.data.replace("\0", "")
        message = self.message(part)
        if message.role == "system":
            self.default_instruction = message.otherwise
        return f"\0{message.role}\0"

    def message(self, node: Any) -> Message:  # jinja's own types say of Keyword that it cannot be
        """The message that an expression gives as it is."""
        match node:
            case nodes.Name(name=name) if name in self.named:
                return self.named[name]
            case nodes.Filter(name="default", node=inner, args=[nodes.Const(value=str(text))], kwargs=[]):
                return Message(self.message(inner).role, text)
            case nodes.Filter(name="first", node=nodes.Filter(name="map", node=chosen, args=[], kwargs=[given])) if (
                is_content(given)
            ):
                return Message(role_of(chosen))
            case nodes.Getattr(attr="content", node=nodes.Filter(name="first", node=chosen)):
                return Message(role_of(chosen))
        raise unread(node)


def is_content(given: Any) -> bool:
    """Whether an argument is `attribute="content"`."""
    return bool(given.key == "attribute" and given.value == nodes.Const("content"))


def role_of(chosen: Any) -> str:
    """The role that `messages | selectattr("role", "eq", ROLE)` looks for."""
    match chosen:
        case nodes.Filter(
            name="selectattr",
            node=nodes.Name(name="messages"),
            args=[nodes.Const(value="role"), nodes.Const(value=test), nodes.Const(value=str(role))],
        ) if test in SAME:
            return role
    raise unread(chosen)


def unread(node: Any) -> ModelRefusedError:
    """That a chat template has what we do not read."""
    what = f"the filter {node.name}" if isinstance(node, nodes.Filter) else type(node).__name__
    line = getattr(node, "lineno", "?")
    return ModelRefusedError(f"the chat template does more than to put messages into words, in line {line}: {what}")
