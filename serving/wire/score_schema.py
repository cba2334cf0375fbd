"""The JSON of `POST /v1/score`: its models, from which the OpenAPI document comes. Reads no request."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
)
from pydantic_core import PydanticKnownError

from serving.limits import Limits
from serving.wire.json_reading import LongString

__all__ = [
    "BLUE",
    "RED",
    "ErrorAnswer",
    "GroupScore",
    "Name",
    "PairError",
    "ScoreAnswer",
    "ScoreRequest",
    "request_model",
]

# Two squares of 8 x 8 pixels, one red and one blue: an example that can be sent as it stands.
RED = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"
BLUE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGNkYPjPgA0wYRUdtBIAy0MBD1YkjLoAAAAASUVORK5CYII="
)
EXAMPLE: dict[str, Any] = {"groups": [{"prompt": "a red square", "images": [RED, BLUE]}]}
EXAMPLE_SCORE: dict[str, Any] = {
    "win_rate": [0.9, 0.1],
    "ranking": [0, 1],
    "win_matrix": [[0.5, 0.9], [0.1, 0.5]],
    "order_gap": [[0, 0.02], [0.02, 0]],
    "tie": [[None, None], [None, None]],
    "valid": [[True, True], [True, True]],
    "errors": ["", ""],
    "pair_errors": [],
}

NAME_LENGTH = 256
# In bytes of JSON: a character outside the Basic Multilingual Plane takes two escapes.
LONGEST_NAME = 12 * NAME_LENGTH

# What the document says of an image; `serving.wire.score_reading` checks it, and says better what is wrong.
BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
IMAGE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 4, "pattern": f"^(?:data:[^,]*;base64,(?=.))?{BASE64}$"},
        {"type": "null"},
    ]
}


def _string(value: object) -> object:
    if isinstance(value, str | LongString):
        return value
    raise PydanticKnownError("string_type")


def _or_null(value: object) -> object:
    return None if value is None else _string(value)


def _empty_or(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """An empty list, which a client may send for one that is left out, or a valid one."""
    return value if value == [] else validate(value)


def _name(value: object) -> object:
    if not isinstance(value, LongString):
        return value
    if len(value) > LONGEST_NAME:
        raise PydanticKnownError("string_too_long", {"max_length": NAME_LENGTH})
    return value.text(LONGEST_NAME)


Name = Annotated[str, Field(max_length=NAME_LENGTH), BeforeValidator(_name)]
Text = Annotated[str | LongString, PlainValidator(_string), WithJsonSchema({"type": "string"})]
MaybeText = Annotated[
    str | LongString | None,
    PlainValidator(_or_null),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
]
Encoded = Annotated[str | LongString, PlainValidator(_string), WithJsonSchema(IMAGE_SCHEMA["anyOf"][0])]
Image = Annotated[str | LongString | None, PlainValidator(_or_null), WithJsonSchema(IMAGE_SCHEMA)]
Matrix = list[list[float | None]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreRequest(_Model):
    """Groups to score. They may differ in size, and are answered in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    groups: Sequence[Any]
    model: Annotated[
        Name | None,
        Field(
            description="The model that judges; may be left out where the server has only one.",
        ),
    ] = None
    version: Annotated[
        Name | None,
        Field(description="Its version; the highest if left out.", examples=["1"]),
    ] = None
    timeout: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds that the answer may take; the server has a bound of its own.",
            examples=[60],
        ),
    ] = None


class _ScoreGroup(_Model):
    """A prompt and the images, videos or texts that answer it."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["images"]}, {"required": ["texts"]}]}
    )

    prompt: Annotated[Text, Field(description="What the candidates answer.")]


class PairError(_Model):
    """Why a pair could not be judged."""

    pair: Annotated[list[int], Field(description="The indices of the two candidates, the smaller one first.")]
    reason: Annotated[str, Field(description="What the judge answered, or why it did not.")]


class GroupScore(_Model):
    """What the judge says of one group. A null is a number that is not known, and never a guess."""

    win_rate: Annotated[
        list[float | None],
        Field(description="For each candidate, its mean probability of beating another: the reward."),
    ]
    ranking: Annotated[
        list[int], Field(description="The indices of the candidates that have a win rate, best first.")
    ]
    win_matrix: Annotated[
        Matrix,
        Field(
            description="`win_matrix[i][j]` is P(candidate i beats candidate j), a tie counting half to each."
        ),
    ]
    order_gap: Annotated[
        Matrix, Field(description="How much that changes when the two are shown the other way round.")
    ]
    tie: Annotated[Matrix, Field(description="P(tie), null if the judge does not model ties.")]
    valid: Annotated[
        list[list[bool]],
        Field(description="Whether the pair was judged; where not, a number was inferred from other pairs."),
    ]
    spread: Annotated[
        Matrix | None,
        Field(description="Of an ensemble alone: the standard deviation of its judges' P(i beats j)."),
    ] = None
    label_mass: Annotated[
        Matrix | None,
        Field(description="Of a judge that is read off its answers alone: the probability of all of them."),
    ] = None
    errors: Annotated[
        list[str], Field(description="For each candidate, why it could not be judged; empty where it could.")
    ]
    pair_errors: Annotated[
        list[PairError], Field(description="The pairs that the judge refused by themselves, with its reason.")
    ]


class ScoreAnswer(_Model):
    """The groups' scores, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "judge", "version": "1", "groups": [EXAMPLE_SCORE]}]}
    )

    model: str
    version: str
    groups: list[GroupScore]


class ErrorAnswer(_Model):
    """Every answer other than 200."""

    error: Annotated[str, Field(description="What was wrong, what was received and what to do.")]


def request_model(limits: Limits) -> type[ScoreRequest]:
    """`ScoreRequest` with the bounds of one server on groups and their sizes."""
    image = limits.image
    formats = (
        f"(PNG, JPEG or WebP, at most {image.max_bytes} bytes and {image.max_pixels} pixels each) in base64, "
        "plain or as a `data:` URL"
    )
    many = f"Of a group of more than {limits.group_size}, nothing is judged, and `errors` has the reason."

    def candidates(description: str) -> Any:
        return Field(
            min_length=2,
            max_length=limits.widest_group,
            description=f"{description} {many}",
            json_schema_extra=_without_default,
        )

    images = candidates(
        f"The encoded images {formats}, or videos (MP4 or WebM, at most {image.video.max_bytes} bytes); null "
        "for one that is missing. No other URL is taken: nothing is ever fetched."
    )
    texts = candidates(
        f"The texts, instead of `images`, of at most {limits.text_bytes} bytes each in UTF-8; null or an "
        "empty string for one that is missing."
    )
    context = Field(
        max_length=limits.request_groups * limits.context_images,
        description=(
            "Images that belong to the prompt, such as the source of an edit or the picture that a question "
            f"is about {formats}; at most {limits.context_images}."
        ),
    )
    criterion = Field(description="What candidates are compared by; an empty string is overall preference.")
    group = create_model(
        "ScoreGroup",
        __base__=_ScoreGroup,
        __doc__=_ScoreGroup.__doc__,
        images=(Annotated[list[Image], images, WrapValidator(_empty_or)], ()),
        texts=(Annotated[list[MaybeText], texts, WrapValidator(_empty_or)], ()),
        context=(Annotated[list[Encoded], context], ()),
        criterion=(Annotated[Text, criterion], ""),
    )
    groups = Field(min_length=1, max_length=limits.request_groups)
    return create_model(
        "ScoreRequest",
        __base__=ScoreRequest,
        __doc__=ScoreRequest.__doc__,
        groups=(Annotated[list[group], groups], ...),  # type: ignore[arg-type,valid-type]
    )


def _without_default(schema: dict[str, Any]) -> None:
    """A list that is left out is no list of nothing."""
    schema.pop("default")
