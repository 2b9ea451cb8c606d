"""What files from outside may say, checked by pydantic before anything is built, allocated or opened by it.

A checked value stays as it was read: the schemas refuse, they do not change. What a file says beside the fields named
here is kept where it is only shown, and refused where it would become the keywords of a call.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from partcrop_lab.errors import BadInput
from partcrop_lab.limits import LARGEST_SEED, how_to_raise, limit, short
from partcrop_lab.text import plain


def text(most: int, printable: bool = False) -> Any:
    """A text of at most so many characters; file names that are not UTF-8 are texts too.

    Args:
        most: characters.
        printable: refuse what could steer a terminal, and line breaks.
    """

    def check(value: Any) -> Any:
        if printable and isinstance(value, str) and plain(value).splitlines() != ([value] if value else []):
            raise PydanticCustomError("control", "it must be one line without control characters")
        if not isinstance(value, str) or len(value) > most:
            raise PydanticCustomError("text", f"it must be a text of at most {most} characters")
        return value

    return Annotated[Any, AfterValidator(check)]


def up_to(name: str, least: int = 1) -> Any:
    """A whole number from `least` to the limit of this name."""

    def check(value: int) -> int:
        if value > limit(name):
            told = f"it is above the limit of {limit(name):,}; {how_to_raise(name)}"
            raise PydanticCustomError("limit", told.replace("{", "{{").replace("}", "}}"))
        return value

    return Annotated[int, Field(ge=least), AfterValidator(check)]


Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")]
Line = text(500, printable=True)
Name = text(4096)
Side = up_to("side")
Pixels = up_to("side", least=8)
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
AnySeed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Whole = Annotated[int, Field(ge=0, le=2**16)]
Depth = Annotated[int, Field(ge=0, le=256)]
Window = Annotated[int, Field(ge=1, le=64)]
Patch = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=64)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Channels = Annotated[list[Finite], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Annotated[Finite, Field(gt=0)]], Field(min_length=3, max_length=3)]


def several(one: Any) -> Any:
    """One, or a list of up to sixteen."""
    many = Annotated[list[one], Field(max_length=16), Tag("many")]
    which = Discriminator(lambda value: "many" if isinstance(value, list) else "one")
    return Annotated[Annotated[one, Tag("one")] | many, which]


def long_list(one: Any, **bounds: int) -> Any:
    """A list of any length, looked at up to the first that is wrong: a million complaints would fill memory."""
    return Annotated[list[one], FailFast(), Field(**bounds)]


class Open(BaseModel):
    """Of a file that may say more than is named here, which is shown but decides nothing."""

    model_config = ConfigDict(strict=True, extra="allow")


class Exact(BaseModel):
    """What becomes the keywords of a call: nothing but what is named here."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ModelOptions(Exact):
    """The options of a timm model that a file may set: its shape, and never a file, folder or address."""

    patch_size: Patch | None = None
    embed_dim: several(Whole) | None = None
    embed_dims: several(Whole) | None = None
    dims: several(Whole) | None = None
    depth: Depth | None = None
    depths: several(Depth) | None = None
    layers: several(Depth) | None = None
    num_heads: several(Whole) | None = None
    head_dim: several(Whole) | None = None
    head_dims: several(Whole) | None = None
    mlp_ratio: several(Ratio) | None = None
    mlp_ratios: several(Ratio) | None = None
    channels: several(Whole) | None = None
    base_width: Whole | None = None
    cardinality: Whole | None = None
    stem_width: Whole | None = None
    stem_type: Word | None = None
    avg_down: bool | None = None
    output_stride: Literal[8, 16, 32] | None = None
    window_size: several(Window) | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    proj_bias: bool | None = None
    scale_attn_norm: bool | None = None
    scale_mlp_norm: bool | None = None
    init_values: Share | None = None
    class_token: bool | None = None
    no_embed_class: bool | None = None
    reg_tokens: Depth | None = None
    pos_embed: Word | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    use_fc_norm: bool | None = None
    fc_norm: bool | None = None
    ls_init_value: Share | None = None
    dynamic_img_size: bool | None = None
    strict_img_size: bool | None = None
    global_pool: Word | None = None
    norm_layer: Word | None = None
    act_layer: Word | None = None
    drop_rate: Share | None = None
    drop_path_rate: Share | None = None
    pos_drop_rate: Share | None = None
    patch_drop_rate: Share | None = None
    proj_drop_rate: Share | None = None
    attn_drop_rate: Share | None = None
    small_stem: bool | None = None


class ArchitectureOf(Exact):
    """See `encoders.backbone.Architecture`."""

    model: Word
    image_size: Side
    options: ModelOptions


def _setting(value: Any) -> Any:
    numbers = value if isinstance(value, list) and len(value) <= 16 else [value]
    for one in numbers:
        if isinstance(one, (list, dict)) or (isinstance(one, str) and len(one) > 128) or not _is_small(one):
            told = "it must be true, false, a word, a number up to 10^7 or a short list of those"
            raise PydanticCustomError("setting", told)
    return value


def _is_small(value: Any) -> bool:
    return not isinstance(value, (int, float)) or -(10**7) <= value <= 10**7


Setting = Annotated[Any, AfterValidator(_setting)]


class TrainingSettings(Open):
    """Of a recipe, as a card has them; they build its heads again."""

    __pydantic_extra__: dict[str, Setting]

    model: Word | None = None
    model_options: ModelOptions | None = None
    mask_ratio: several(Share) = 0.0
    view_size: Annotated[float, Field(gt=0, le=1)] | None = None
    depth: Depth | None = None
    decoder_depth: Depth | None = None
    regressor_depth: Depth | None = None
    local_crops: Depth | None = None


class Memory(Exact):
    """Images handed over as an array."""

    source: Literal["memory"]


class Joined(Exact):
    """Images of several sources."""

    source: Literal["joined"]
    parts: long_list("Part", min_length=1)


class Loaded(Exact):
    """The keywords of `load_images`."""

    source: Name
    n: up_to("rows") | None = None
    size: Pixels | None = None
    seed: AnySeed = 0
    root: Name = "data"
    on_error: Literal["raise", "skip"] = "raise"
    skipped: long_list(Name) = []
    part: Word = "train"
    background_correlation: Share = 0.0
    boxes: Name | None = None
    follow_links: bool = False


def _kind_of_source(value: Any) -> str:
    source = value.get("source") if isinstance(value, dict) else None
    return source if source in ("memory", "joined") else "loaded"


Source = Annotated[
    Annotated[Memory, Tag("memory")] | Annotated[Joined, Tag("joined")] | Annotated[Loaded, Tag("loaded")],
    Discriminator(_kind_of_source),
]


class Part(Exact):
    """One of several sources, with the names taken from it."""

    load: Source
    names: long_list(Name)
    prefix: Line


class OneSide(Exact):
    """The members, or the non-members, of a split."""

    load: Source
    names: long_list(Name, min_length=1)


class Split(Open):
    """See `images.MembershipSplit.record`."""

    format: Literal["partcrop-lab split 1"]
    origin: Literal["drawn", "given"]
    seed: AnySeed | None
    dropped: Count
    independent: bool
    digest: Sha256
    members: OneSide
    nonmembers: OneSide


class Interval(Open):
    """A value with its interval, as a card keeps it."""

    value: float | None
    low: float | None
    high: float | None


class CardAudit(Open):
    """An audit on a card."""

    verdict: text(4096)
    attack: dict[Word, Any]
    metrics: dict[str, Interval]

    @model_validator(mode="after")
    def _is_whole(self) -> CardAudit:
        if not isinstance(self.attack.get("attack"), str) or "auc" not in self.metrics:
            raise PydanticCustomError("audit", "it must name its attack and hold the metric auc")
        return self


class Utility(Open):
    """What an encoder is good for, as a card keeps it."""

    linear_probe: float | None = None


class Pair(Open):
    """The images of a pair of encoders: public ones, and those that neither was trained on."""

    public: Loaded
    held_out: long_list(Name, min_length=1)


class Card(Open):
    """What is known of an encoder's training."""

    recipe: Word | None = None
    settings: TrainingSettings = TrainingSettings()
    N: Count | None = None
    T: Count | None = None
    planned: Count | None = None
    seed: AnySeed | None = None
    images_digest: Sha256 | None = None
    split_digest: Sha256 | None = None
    split: Split | None = None
    audit: CardAudit | None = None
    features: long_list(list[float]) = []
    utility: Utility | None = None
    pair: Pair | None = None
    privacy: dict[str, Any] = {}


class ZooCard(Card):
    """The card beside an encoder of the zoo."""

    recipe: Word
    N: Count
    T: Count
    sha256: Sha256


class Header(Open):
    """How one of our own encoders describes itself in its file."""

    architecture: ArchitectureOf
    image_size: Side
    mean: Channels
    std: Deviations
    name: Line
    pooling: Literal["cls", "mean"] | None
    card: Card

    @model_validator(mode="after")
    def _is_one_side(self) -> Header:
        if self.image_size != self.architecture.image_size:
            raise PydanticCustomError("side", "its image_size must be that of its architecture")
        return self


class ReconstructorOptions(Exact):
    """See `dejavu.ReconstructorSettings`."""

    size: Annotated[int, Field(ge=8, le=512)]
    channels: Annotated[list[Annotated[int, Field(ge=8, le=2048)]], Field(min_length=3, max_length=3)]
    epochs: Whole
    batch: Whole
    lr: Finite
    momentum: Share
    seed: AnySeed


class ReconstructorHeader(Open):
    """How a reconstructor describes itself in its file."""

    width: Annotated[int, Field(ge=1, le=2**16)]
    settings: ReconstructorOptions
    encoder: Sha256
    name: Line
    layer: Line | Depth


class Queries(Open):
    """What a file of queries is for."""

    format: Literal["partcrop-lab queries 1"]
    name: Line
    attack: Annotated[Line, Field(min_length=1)]
    seed: Seed
    repeats: up_to("repeats")
    split: Split
    image_size: Pixels
    view_side: Side | None = None
    patch: Side


class TableField(Open):
    """A column of a table in a result."""

    name: text(128)
    type: Literal["integer", "number", "boolean", "string"]
    extDtype: Literal["str", "string"] | None = None


class TableShape(Open):
    """The columns of a table in a result."""

    fields: Annotated[list[TableField], Field(min_length=1)]
    primaryKey: Annotated[list[Literal["index"]], Field(min_length=1, max_length=1)]


class Table(Open):
    """A table in a result, as pandas writes it."""

    shape: TableShape = Field(alias="schema")
    data: long_list(dict[text(128), bool | int | float | text(4096) | None])


class EncoderOf(Open):
    """The encoder of a result."""

    name: Line
    N: Count | None = None
    T: Count | None = None


class ResultSettings(Open):
    """What made the numbers of a result."""

    encoder: EncoderOf
    membership: Literal["trained", "given", "null check"]
    members: Count
    nonmembers: Count
    size: Side
    attack: dict[Word, Any]
    label: text(4096, printable=True)
    queries: Count
    attacker: text(16384)
    seed: AnySeed
    repeats: Count
    folds: Annotated[int, Field(ge=2, le=2**16)]
    protocol: Literal["matched", "released"]
    threat: Line
    needs: Annotated[list[Line], Field(min_length=1)]
    detectable_auc: float
    accuracy_by_epoch: list[float] = []

    @model_validator(mode="after")
    def _names_its_attack(self) -> ResultSettings:
        if not isinstance(self.attack.get("attack"), str):
            raise PydanticCustomError("attack", "it must name its attack")
        return self


class Result(Exact):
    """A saved audit, its tables still as texts."""

    metrics: Any
    scores: Any
    controls: Any
    null_band: Any
    p_value: float
    verdict: text(4096)
    outcome: Literal["Evidence of leakage", "No evidence of leakage", "Confounded"]
    settings: ResultSettings
    fault: text(4096) | None


def _names(value: Any) -> Any:
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise PydanticCustomError("names", "it must be a list of texts")
    return value


class Feature(Open):
    """A column as Hugging Face describes it."""

    names: Annotated[Any, AfterValidator(_names)] = None


class Features(Open):
    """The columns, by name."""

    features: dict[str, Feature | list[Any] | None] = {}


class HuggingFace(Open):
    """What Hugging Face writes into a parquet file beside the columns."""

    info: Features = Features()


def checked(schema: type[BaseModel], value: Any, where: object) -> Any:
    """The value as it is, where it is what the schema says.

    Args:
        schema: one of this module.
        value: as it was read.
        where: the file, for the message.

    Raises:
        BadInput: it is not; the message names the file and the first field that is wrong.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first(error)}") from error
    except RecursionError as error:
        raise BadInput(f"{where}: nests too deep") from error
    return value


WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "string_pattern_mismatch": "a word of the right form",
    "too_short": "longer",
    "too_long": "shorter",
}
"""What would be right, by pydantic's kinds of errors, where its own words are not clear to who wrote no model."""

TAGS = {"one", "many", "memory", "joined", "loaded"}


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence that shows numbers but no text of the file."""
    first = error.errors(include_url=False, include_input=True)[0]
    place = ".".join(str(part)[:60] for part in first["loc"] if part not in TAGS) or "all of it"
    if first["type"] == "extra_forbidden":
        return f"{place} is nothing that such a file may set"
    if first["type"] == "missing":
        return f"{place} is missing"
    shown = _shown(first["input"])
    said = WANTED.get(first["type"]) or first["msg"].removeprefix("Input should be ")
    return f"{place} is {shown}; {said if said.startswith('it') else f'it must be {said}'}"


def _shown(found: Any) -> str:
    """A number as it is; of anything else what kind of thing it is."""
    if type(found) in (int, float):
        return short(found) if type(found) is int else f"{found:g}"
    return KINDS.get(type(found), "something else")


KINDS = {str: "a text", bool: "true or false", list: "a list", dict: "an object", type(None): "null"}
"""How what was found is called, by its type in Python."""
