"""The JSON of `POST /v1/chat/completions` and `GET /v1/models`: the parts of OpenAI's that a judge needs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from serving.wire.score_schema import BLUE, RED, Name

__all__ = ["ChatAnswer", "ChatErrorAnswer", "ChatRequest", "ModelCard", "ModelList"]

MOST_CHOICES = 128
MOST_ALTERNATIVES = 20
MOST_MESSAGES = 16

TEXT_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
IMAGE_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "description": "A `data:` URL in base64; nothing is ever fetched."}
            },
        },
    },
}
MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [TEXT_PART, IMAGE_PART]}}]
        },
    },
}
EXAMPLE: dict[str, Any] = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{RED}"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BLUE}"}},
                {"type": "text", "text": "Which image is better?\nText Caption: [a red square]"},
            ],
        }
    ],
    "logprobs": True,
    "top_logprobs": 2,
}


class ChatRequest(BaseModel):
    """A pairwise question: two images, and a text with a caption in it. Fields of OpenAI's and vLLM's that
    are not named here change nothing."""

    model_config = ConfigDict(extra="ignore", strict=True, json_schema_extra={"examples": [EXAMPLE]})

    messages: Annotated[
        list[Annotated[Any, WithJsonSchema(MESSAGE)]],
        Field(
            min_length=1,
            max_length=MOST_MESSAGES,
            description="Two images in all, in order, and texts of which one holds the caption. The answer "
            "continues a last message of the assistant.",
        ),
    ]
    model: Annotated[
        Name | None,
        Field(description="The model that judges; may be left out where the server has only one."),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="0, as if left out: the likelier answer. Above: drawn from its probabilities.",
        ),
    ] = None
    seed: Annotated[int | None, Field(description="Of what is drawn.")] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES, description="Number of choices.")] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Tokens of a choice; it is cut there.")] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="The same.")] = None
    logprobs: Annotated[bool | None, Field(description="Whether log-probabilities are wanted.")] = None
    top_logprobs: Annotated[
        int | None, Field(ge=0, le=MOST_ALTERNATIVES, description="Likeliest tokens at each position.")
    ] = None
    stream: Annotated[bool | None, Field(description="Must not be true.")] = None
    logprob_token_ids: Annotated[
        Any, Field(description="Must be left out: a judge has no vocabulary.", exclude=True)
    ] = None


class _Alternative(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class _Token(_Alternative):
    top_logprobs: list[_Alternative]


class _Logprobs(BaseModel):
    content: list[_Token]


class _Message(BaseModel):
    role: Literal["assistant"]
    content: str


class _Choice(BaseModel):
    index: int
    message: _Message
    logprobs: _Logprobs | None
    finish_reason: Literal["stop", "length"]


class _Usage(BaseModel):
    prompt_tokens: Annotated[int, Field(description="What the comparison costs, as the queue estimates it.")]
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """The verdict, in the words of the question's dialect."""

    id: str
    object: Literal["chat.completion"]
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    choices: list[_Choice]
    usage: _Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: Annotated[str, Field(description="Its name, for `model` of a request.")]
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="When the server started, in seconds since 1970.")]
    owned_by: str = "prefrm"


class ModelList(BaseModel):
    """The models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class _Error(BaseModel):
    message: Annotated[str, Field(description="What was wrong, what was received and what to do.")]
    type: Literal["invalid_request_error", "server_error"]
    param: None = None
    code: Annotated[int, Field(description="The HTTP status.")]


class ChatErrorAnswer(BaseModel):
    """Every answer of these routes other than 200."""

    error: _Error
