"""Random changes to training examples, drawn anew for each example and epoch: one section a technique."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue

from trials.recipe.section import (
    BelowOne,
    Count,
    Fraction,
    ImportPath,
    NotNegative,
    PositiveFraction,
    Section,
)


class RandomCrop(Section):
    """Pad the image with black and cut its own size out again at a random place."""

    name: Literal["random_crop"]
    """Pad with black (0, or the smallest value of images that are no bytes) and crop. Every one of the
    (2 padding + 1)^2 places is equally likely. [arXiv:1512.03385, section 4.2]"""
    padding: Count = 4
    """Pixels of padding on each side. It must be less than the image's side. [arXiv:1512.03385, section 4.2]"""


class RandomResizedCrop(Section):
    """Cut a random part out of the image and resize it to the whole."""

    name: Literal["random_resized_crop"]
    """Crop a random area and shape, then resize it to the image's size by bilinear interpolation. The recipe for
    ImageNet. [arXiv:1409.4842; torchvision.transforms.v2.RandomResizedCrop]"""
    min_area: PositiveFraction = 0.25
    """Smallest area of the crop as a share of the image's. The area is uniform between this and 1; at 1 the image stays
    whole, as it does when ten shapes in a row do not fit into it.
    [torchvision.transforms.v2.RandomResizedCrop, where it is 0.08]"""
    min_ratio: PositiveFraction = 0.75
    """Smallest ratio of the crop's sides. The ratio is drawn evenly in its logarithm from this to its inverse.
    [torchvision.transforms.v2.RandomResizedCrop]"""


class HorizontalFlip(Section):
    """Mirror the image left to right."""

    name: Literal["horizontal_flip"]
    """Mirror left to right. Leave it out where left and right mean something. [torchvision.transforms.v2]"""
    probability: Fraction = 0.5
    """Share of the images that are mirrored. Each is decided on its own. [torchvision.transforms.v2]"""
    except_classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of classes that are never mirrored, since it would make another class of them. A name that the data does
    not have is refused. [sweeper]"""


class VerticalFlip(Section):
    """Mirror the image top to bottom."""

    name: Literal["vertical_flip"]
    """Mirror top to bottom. It suits pictures without an up, such as those from above. [torchvision.transforms.v2]"""
    probability: Fraction = 0.5
    """Share of the images that are mirrored. Each is decided on its own. [torchvision.transforms.v2]"""
    except_classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of classes that are never mirrored, since it would make another class of them. A name that the data does
    not have is refused. [sweeper]"""


class Rotation(Section):
    """Turn the image about its centre."""

    name: Literal["rotation"]
    """Turn by a random angle, with bilinear interpolation. What comes in from outside is black.
    [torchvision.transforms.v2.RandomRotation]"""
    degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 15.0
    """Largest angle to either side, in degrees. The angle is uniform in between; 0 does not turn.
    [torchvision.transforms.v2.RandomRotation]"""


class Affine(Section):
    """Turn, shift, scale and shear the image at once."""

    name: Literal["affine"]
    """A random affine change about the centre, with one bilinear interpolation. What comes in from outside is black.
    [torchvision.transforms.v2.RandomAffine]"""
    degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    """Largest angle to either side, in degrees. 0 does not turn. [torchvision.transforms.v2.RandomAffine]"""
    translate: BelowOne = 0.1
    """Largest shift along each side, as a share of that side, to the fraction of a pixel. 0 does not shift.
    [torchvision.transforms.v2.RandomAffine]"""
    scale: BelowOne = 0.1
    """Largest change of size: the factor is uniform from 1 - scale to 1 + scale. 0 keeps the size.
    [torchvision.transforms.v2.RandomAffine]"""
    shear: Annotated[float, Field(ge=0.0, lt=90.0)] = 0.0
    """Largest shear along the rows, in degrees to either side. 0 does not shear.
    [torchvision.transforms.v2.RandomAffine]"""


class ColorJitter(Section):
    """Change brightness, contrast, saturation and hue."""

    name: Literal["color_jitter"]
    """Random brightness, contrast, saturation and hue, in this order. Gray images have no saturation and hue to change.
    [torchvision.transforms.v2.ColorJitter]"""
    brightness: NotNegative = 0.2
    """The image is multiplied by a factor from max(0, 1 - brightness) to 1 + brightness. 0 leaves it.
    [torchvision.transforms.v2.ColorJitter]"""
    contrast: NotNegative = 0.2
    """The distance from the image's mean gray is multiplied by such a factor. 0 leaves it.
    [torchvision.transforms.v2.ColorJitter]"""
    saturation: NotNegative = 0.2
    """The distance from each pixel's gray is multiplied by such a factor. 0 leaves it.
    [torchvision.transforms.v2.ColorJitter]"""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest turn of the colour wheel to either side, as a share of a whole turn. 0 leaves it.
    [torchvision.transforms.v2.ColorJitter]"""


class Erasing(Section):
    """Blank a random box of the image."""

    name: Literal["erasing"]
    """Set a random box to the mean colour of the training split. It makes the network look at more than one part.
    [arXiv:1708.04896]"""
    probability: Fraction = 0.5
    """Share of the images that lose a box. Each is decided on its own. [arXiv:1708.04896]"""
    min_area: PositiveFraction = 0.02
    """Smallest area of the box as a share of the image's. The area is uniform from this to max_area.
    [arXiv:1708.04896]"""
    max_area: PositiveFraction = 0.33
    """Largest area of the box as a share of the image's. It must not be less than min_area. [arXiv:1708.04896]"""
    min_ratio: PositiveFraction = 0.3
    """Smallest ratio of the box's sides. The ratio is drawn evenly in its logarithm from this to its inverse.
    [arXiv:1708.04896]"""


class RandAugment(Section):
    """Several random operations of one strength on each image."""

    name: Literal["rand_augment"]
    """Apply `operations` random changes of one magnitude to each image, of geometry and of colour. Two numbers to
    search instead of a policy. [arXiv:1909.13719; torchvision.transforms.v2.RandAugment]"""
    operations: Count = 2
    """Operations applied to each image, one after another. Each is drawn from the same list, the identity included.
    [arXiv:1909.13719]"""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Strength of every operation, from 0 (none) to 30 (strongest). Two of the fourteen, auto contrast and equalize,
    have only one. [arXiv:1909.13719]"""


class TrivialAugment(Section):
    """One random operation of a random strength on each image."""

    name: Literal["trivial_augment"]
    """Apply one random change of random strength to each image. It has no number to tune.
    [arXiv:2103.10158; torchvision.transforms.v2.TrivialAugmentWide]"""


class CustomAugment(Section):
    """A function of your own."""

    name: Literal["custom"]
    """Call your own function on each batch of images, features or word numbers. It runs in the order in which it
    stands in the list. [sweeper]"""
    function: ImportPath
    """`module:function`, called as `function(inputs, generator, **arguments)` with raw inputs (N, ...), on whichever
    device they are. It returns the same shape and type, and draws from the generator it is given. [sweeper]"""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the function. Ranges may stand in them. [sweeper]"""


class RandomDeletion(Section):
    """Leave words out."""

    name: Literal["random_deletion"]
    """Leave each word out with a small probability. At least one word stays. [arXiv:1901.11196]"""
    probability: BelowOne = 0.1
    """Share of the words that are left out. Each is decided on its own. [arXiv:1901.11196]"""


class RandomSwap(Section):
    """Let words change places."""

    name: Literal["random_swap"]
    """Let pairs of words change places. Order matters less than one thinks. [arXiv:1901.11196]"""
    share: BelowOne = 0.1
    """Swaps as a share of the number of words, but at least one. A swap takes two random places. [arXiv:1901.11196]"""


class RandomInsertion(Section):
    """Put synonyms of the text's own words at random places."""

    name: Literal["random_insertion"]
    """Insert a synonym of a random word of the text at a random place. A word without a synonym inserts nothing.
    [arXiv:1901.11196]"""
    share: BelowOne = 0.1
    """Insertions as a share of the number of words, but at least one. What no longer fits into `max_tokens` falls off
    the end. [arXiv:1901.11196]"""
    table: str | None = None
    """A file with synonyms, one group a line, separated by commas; WordNet without stop words, where it is installed,
    when left out. Only single words that the model knows are used. [arXiv:1901.11196; https://wordnet.princeton.edu]"""


class SynonymReplacement(Section):
    """Say words in other words."""

    name: Literal["synonym_replacement"]
    """Replace random words by one of their synonyms. Words without a known synonym stay. [arXiv:1901.11196]"""
    probability: BelowOne = 0.1
    """Share of the words that are replaced. Each is decided on its own. [arXiv:1901.11196]"""
    table: str | None = None
    """A file with synonyms, one group a line, separated by commas; WordNet without stop words, where it is installed,
    when left out. Only single words that the model knows are used. [arXiv:1901.11196; https://wordnet.princeton.edu]"""


class BackTranslation(Section):
    """Into another language and back."""

    name: Literal["back_translation"]
    """Replace texts by their translation into another language and back; it comes first, as it starts from the text as
    it was written. Each training text is translated once, and kept in `$SWEEPER_DATA`.
    [arXiv:1511.06709; arXiv:1904.12848]"""
    there: ImportPath
    """`module:function` that takes a list of texts and returns a list of translations. It may be a Hugging Face
    pipeline: answers of the form `{"translation_text": ...}` are understood. [sweeper]"""
    back: ImportPath
    """`module:function` for the way back. It is called in the same way. [sweeper]"""
    probability: Fraction = 0.5
    """Share of the texts that are replaced in an epoch. Each is decided on its own. [arXiv:1904.12848]"""
    batch_size: Count = 32
    """Texts handed to the functions at a time. What was translated before a kill is not translated again. [sweeper]"""


def _spelled_out(value: Any) -> Any:
    """A bare name is a section of defaults: `horizontal_flip` means `{name: horizontal_flip}`."""
    return {"name": value} if isinstance(value, str) else value


class _BareNames:
    """Tells JSON Schema that a name alone will do, where the section has a default for all else."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        spec = handler(core_schema)
        sections = [handler.resolve_ref_schema(section) for section in spec["oneOf"]]
        names = [section["properties"]["name"]["const"] for section in sections if section["required"] == ["name"]]
        return {"anyOf": [spec, {"enum": names}]}


ImageAugment = (
    RandomCrop
    | RandomResizedCrop
    | HorizontalFlip
    | VerticalFlip
    | Rotation
    | Affine
    | ColorJitter
    | Erasing
    | RandAugment
    | TrivialAugment
)
TextAugment = RandomDeletion | RandomSwap | RandomInsertion | SynonymReplacement | BackTranslation
Augment = Annotated[
    ImageAugment | TextAugment | CustomAugment,
    Field(discriminator="name"),
    BeforeValidator(_spelled_out),
    _BareNames(),
]
