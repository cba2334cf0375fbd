"""Reading of the body of `POST /v1/chat/completions`: a pairwise question as a group of two candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from prefrm.winmatrix import Group
from serving.errors import InvalidRequestError
from serving.inflight import Lease
from serving.limits import Limits
from serving.steps import Steps
from serving.wire.chat_dialects import Dialect, recognise
from serving.wire.chat_schema import ChatRequest
from serving.wire.json_fields import describe_mistakes, kind_of, read_image, read_text
from serving.wire.json_reading import LongString, read_json

__all__ = ["Question", "read_question"]

# Of UTF-8, for the instruction around a caption; the longest that is published has 4 KiB.
INSTRUCTION_BYTES = 2**16
ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as the data plane takes it.

    Attributes:
        group: the caption, the criterion and the two images; one that was too large to be decoded is
            missing here.
        refusals: why it is, for each image; "" for the others.
        dialect: of the answer.
        prefix: the beginning of the answer that the client wrote itself.
        request: the other fields.
    """

    group: Group
    refusals: Sequence[str]
    dialect: Dialect
    prefix: str
    request: ChatRequest


def read_question(
    body: bytes | bytearray, dialects: Sequence[Dialect], limits: Limits, lease: Lease
) -> Steps[Question]:
    """The question in a body.

    Args:
        body: decompressed.
        dialects: that are understood.
        limits: of the server.
        lease: takes the bytes of each image before it is decoded.

    Raises:
        InvalidRequestError: it is not a `ChatRequest` with two images and a caption; names the field.
        OverloadedError: there is no room for the images.
    """
    value = yield from read_json(body, len(body), limits)
    try:
        request = ChatRequest.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(describe_mistakes(error)) from None
    _check_supported(request)
    parts = _Parts(limits, lease)
    for n, message in enumerate(request.messages):
        yield from parts.read(message, f"messages[{n}]", is_last=n == len(request.messages) - 1)
    if len(parts.images) != 2:
        raise InvalidRequestError(
            f"messages: a question is about 2 images; received {len(parts.images)}. Single images, frames of "
            "videos and source images of edits are not supported; POST /v1/score takes larger groups"
        )
    dialect, caption = recognise(parts.texts, dialects)
    return Question(
        group=Group(
            prompt=caption,
            candidates=tuple(parts.images),
            criterion=dialect.criterion(parts.texts, caption),
        ),
        refusals=parts.refusals,
        dialect=dialect,
        prefix=parts.prefix,
        request=request,
    )


class _Parts:
    """The images and texts of messages, in order, and the text of a last message of the assistant."""

    def __init__(self, limits: Limits, lease: Lease) -> None:
        self._limits, self._lease = limits, lease
        self._left = limits.prompt_bytes + INSTRUCTION_BYTES
        self.images: list[bytes | None] = []
        self.refusals: list[str] = []
        self.texts: list[str] = []
        self.prefix = ""

    def read(self, message: object, where: str, *, is_last: bool) -> Steps[None]:
        """Add a message. Raises as `read_question`."""
        fields = _object(message, where)
        role, content = fields.get("role"), fields.get("content")
        if role not in ROLES:
            raise InvalidRequestError(f"{where}.role is {kind_of(role)}; send one of {', '.join(ROLES)}")
        if isinstance(content, str | LongString):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise InvalidRequestError(
                f"{where}.content is {kind_of(content)}; send a string or a list of parts"
            )
        if role == "assistant":
            if not is_last:
                raise InvalidRequestError(f"{where} is the assistant's and not the last; leave it out")
            self.prefix = "".join(self._text(part, where) for part in content)
            return
        for k, part in enumerate(content):
            yield from self._part(part, f"{where}.content[{k}]")

    def _part(self, part: object, where: str) -> Steps[None]:
        fields = _object(part, where)
        if fields.get("type") == "text":
            self.texts.append(self._text(part, where))
        elif fields.get("type") == "image_url":
            url = _object(fields.get("image_url"), f"{where}.image_url").get("url")
            image, refusal = yield from read_image(
                _string(url, f"{where}.image_url.url"), f"{where}.image_url.url", self._limits, self._lease
            )
            self.images.append(image)
            self.refusals.append(refusal)
        else:
            raise InvalidRequestError(f"{where}.type must be 'text' or 'image_url'; send parts of these only")

    def _text(self, part: object, where: str) -> str:
        value = _string(_object(part, where).get("text"), f"{where}.text")
        text = read_text(value, f"{where}.text", self._left)
        self._left -= len(text)
        if self._left < 0:
            raise InvalidRequestError(f"{where}.text: all texts together have too many characters")
        return text


def _check_supported(request: ChatRequest) -> None:
    if request.stream:
        raise InvalidRequestError("stream is true, and an answer is not streamed; leave it out")
    if request.logprob_token_ids is not None:
        raise InvalidRequestError(
            "logprob_token_ids: a judge has no vocabulary; send top_logprobs and match the tokens' texts"
        )


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{where} is {kind_of(value)}; send an object")
    return value


def _string(value: object, where: str) -> str | LongString:
    if not isinstance(value, str | LongString):
        raise InvalidRequestError(f"{where} is {kind_of(value)}; send a string")
    return value
