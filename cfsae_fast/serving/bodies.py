"""Floor 6: what clients send and get, as pydantic models; they are the OpenAPI document too."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from cfsae_fast.serving.limits import Limits

Integer = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[StrictStr, Field(max_length=1000)]
ExternalId = Integer | Text


class Toward(BaseModel):
    """Move the user towards a concept, the less the more their own history says."""

    model_config = ConfigDict(extra="forbid")

    toward: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


Share = Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
Amount = Share | Literal["only"] | Toward
Wish = Annotated[dict[Text, Amount], Field(max_length=100)] | Text | None


class Item(BaseModel):
    item: int | str
    title: str | None
    score: float


class Answer(BaseModel):
    """Items of each history or user, best first; fewer than n where no more may be recommended."""

    results: list[list[Item]]


class ConceptEntry(BaseModel):
    """confidence: how often the knob lifts an item of the concept above one without it, as
    `Concept.confidence` (None: not tested); knob: that in words, such as "no reliable knob"; toward
    and toward_confidence: the same of the map that toward has (None: it does not know it)."""

    name: str
    n_items: int
    latents: list[int]
    confidence: float | None
    knob: str
    toward: str | None
    toward_confidence: float | None


class ItemEntry(BaseModel):
    item: int | str
    title: str | None


class Health(BaseModel):
    status: Literal["ok"]
    model: str
    items: int
    concepts: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: Any


def question(limits: Limits) -> type[BaseModel]:
    """The body of POST /recommend within `limits`."""
    history = Annotated[list[ExternalId], Field(max_length=limits.history)]
    listed = Annotated[list[ExternalId], Field(max_length=limits.listed)]
    wishes = Annotated[list[Wish], Field(max_length=limits.batch)]

    class Question(BaseModel):
        """histories (lists of item ids) or users (ids of stored ones); steer: one wish for all, or
        a list of one for each; a wish is {"film noir": 0.3}, {"film noir": {"toward": 0.3}}, or
        text such as "film noir=0.3, -horror" and "toward:film noir=0.3"."""

        model_config = ConfigDict(extra="forbid")

        histories: Annotated[list[history], Field(max_length=limits.batch)] | None = None
        users: Annotated[list[ExternalId], Field(max_length=limits.batch)] | None = None
        n: StrictInt = Field(10, ge=1, le=limits.n)
        steer: Wish | wishes = None
        mode: Literal["residual", "reconstruct"] = "residual"
        exclude_seen: StrictBool = True
        allow: listed | None = None
        deny: listed | None = None
        unknown: Literal["error", "ignore"] = "error"

    return Question
