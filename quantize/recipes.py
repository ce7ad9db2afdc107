"""Names every way to store a model in fewer bits, for all formats, in one grammar.

    NAME        = WEIGHTS [ACTIVATIONS] ["-" OPTION]...
    WEIGHTS     = "w8" | "w4"            integers of so many bits, signed, one scale per output channel
                | "p8" | "p6" | "p4"     so many bits that point into a palette of float values (Core ML)
                | "f16"                  float16, arithmetic included
                | "f32"                  as they are, for an option that makes them smaller
    ACTIVATIONS = "a8" | "a16"           integers whose range was fixed by calibration (static)
                | "d8"                   integers whose range is found anew in every run (dynamic)
                  nothing                stay float: the weights alone are stored small
    OPTION      = "s8"                   activations signed; without it they are unsigned (U8S8). For ONNX:
                                         TFLite's and Core ML's always have a sign, so no name says it
                | "rr"                   reduced range: 7-bit weights, for processors whose 8-bit products
                                         saturate in 16 bits (x86 without VNNI)
                | "learned"              weights and ranges are trained on the calibration clips (minutes)
                | "mixed"                what is cheap to leave in float stays so: of integers the small
                                         layers, of float16 all arithmetic
                | "f64"                  what stays float is computed in float64, so that no order of adding
                                         shows: with rr, the same score to the bit on every processor (ONNX)
                | "pruned"               the smallest quarter of the weights is zero and not stored (Core ML)
                | "auto"                 the layers to leave in float are found by quantize/sensitivity.py
                | "all"                  the layers that hear the waveform too; to show what that costs

So ``w8a8`` is static QDQ in U8S8, ``w8a8-s8`` the same in S8S8, ``w8a16`` has 16-bit activations, ``w8d8`` is
dynamic INT8, ``w8`` and ``w4`` are weight-only, ``f16-mixed`` is float16 in the file and float32 in the
arithmetic. ``w8a8-learned-mixed`` is the most exact that is still fast, ``w8a8-rr-learned-mixed`` its twin
whose integers are the same on every processor, and ``w8a8-rr-learned-f64`` gives the very same scores. In a
TFLite file ``w8d8`` is both exact and fast. In Core ML,
``p6-pruned`` is a joint compression: a palette for what pruning has left.

Which layers stay float without being told is no part of the name, because it is the same for all: the layers
that hear the waveform (8-bit audio is worse than any 8-bit layer), and whatever is small and sensitive beside
the convolutions and projections, such as graph attention.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from antispoof.errors import UserError

AUTO = "w8a8-rr-auto"  # what plain "auto" is short for
Activations = Literal["float", "static", "dynamic"]

_NAME = re.compile(
    r"(?P<weights>w8|w4|p8|p6|p4|f16|f32)(?P<activations>a8|a16|d8)?"
    r"(?P<options>(-(s8|rr|learned|mixed|f64|pruned|auto|all))*)",
    re.ASCII,
)
_KINDS: dict[str, Activations] = {"a": "static", "d": "dynamic"}
# In the order in which a name spells them, so that a recipe has one name.
_OPTIONS = {
    "s8": "signed_activations",
    "rr": "reduced_range",
    "learned": "learned",
    "mixed": "mixed",
    "f64": "float64",
    "pruned": "pruned",
    "auto": "searched",
    "all": "everything",
}


@dataclass(frozen=True)
class Recipe:
    """What becomes of weights and activations.

    Attributes:
        weight_bits: 4 to 32; 16 and 32 are float16 and float32, fewer are integers.
        activations: ``float``, or integers of a ``static`` or ``dynamic`` range.
        activation_bits: 8 or 16; 16 too for the float16 of ``f16``, 32 where they stay float32.
        signed_activations: Whether integer activations have a sign.
        reduced_range: Whether 8-bit weights use 7 bits.
        learned: Whether weights and ranges are trained to lose less.
        mixed: Whether what is cheap to leave in float is left.
        float64: Whether what stays float is computed in float64.
        pruned: Whether the smallest quarter of the weights becomes zero.
        searched: Whether a search says which layers are left in float.
        everything: Whether even the layers that hear the waveform are quantized.
        palette: Whether the integers point into a palette and are no multiples of a step.
    """

    weight_bits: int
    activations: Activations
    activation_bits: int
    signed_activations: bool = False
    reduced_range: bool = False
    learned: bool = False
    mixed: bool = False
    float64: bool = False
    pruned: bool = False
    searched: bool = False
    everything: bool = False
    palette: bool = False

    @property
    def float16(self) -> bool:
        """Whether the numbers are float16 and not integers."""
        return self.weight_bits == 16

    @property
    def weight_limit(self) -> int:
        """The largest weight in steps: symmetric, so the most negative integer is never used."""
        return 2 ** (self.weight_bits - 1 - self.reduced_range) - 1

    @property
    def name(self) -> str:
        """The recipe's one name, which `parse_recipe` reads back."""
        weights = f"{'f' if self.weight_bits >= 16 else 'p' if self.palette else 'w'}{self.weight_bits}"
        letter = {"static": "a", "dynamic": "d", "float": ""}[self.activations]
        activations = f"{letter}{self.activation_bits}" if letter else ""
        options = "".join(f"-{option}" for option, field in _OPTIONS.items() if getattr(self, field))
        return weights + activations + options

    @property
    def precision(self) -> str:
        """What a manifest calls the numbers."""
        if self.float16:
            return "float16"
        kind = f"float{self.weight_bits}" if self.weight_bits == 32 else f"int{self.weight_bits}"
        kind = f"{self.weight_bits}-bit palette" if self.palette else kind
        weights = f"{kind} weights{', a quarter of them zero' * self.pruned}"
        if self.activations == "float":
            return f"{weights}, float32 activations"
        sign = "" if self.signed_activations else "u"
        rest = ", float64 elsewhere" * self.float64
        return f"{weights}, {sign}int{self.activation_bits} activations{rest}"


def parse_recipe(name: str) -> Recipe:
    """Returns the recipe that a name spells.

    Raises:
        UserError: The name is not of the grammar, or asks for what contradicts itself.
    """
    name = AUTO if name == "auto" else name
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"no recipe {name!r}: a name is w8, w4, p8, p6, p4, f16 or f32, then a8, a16 or d8, then "
            "-s8, -rr, -learned, -mixed, -f64, -pruned or -auto"
        )
    chosen = match["options"].split("-")[1:]
    options = {field: option in chosen for option, field in _OPTIONS.items()}
    weights, activations = match["weights"], match["activations"]
    if weights == "f16":
        recipe = Recipe(16, "float", 16, **options)
    else:
        kind = _KINDS[activations[0]] if activations else "float"
        bits = int(activations[1:]) if activations else 32
        recipe = Recipe(int(weights[1:]), kind, bits, **options, palette=weights.startswith("p"))
    if _contradicts(recipe) or (recipe.weight_bits >= 16 and activations):
        raise UserError(f"recipe {name!r} asks of its integers what they are not there for")
    if len(set(chosen)) < len(chosen) or recipe.name != name:
        raise UserError(f"recipe {name!r}: options stand once each, in the order {recipe.name}")
    return recipe


def _contradicts(recipe: Recipe) -> bool:
    """Whether a recipe asks of its integers what they are not there for."""
    static = recipe.activations == "static"
    integers = recipe.weight_bits < 16 and not recipe.palette
    return any(
        (
            recipe.weight_bits == 32 and not recipe.pruned,
            recipe.signed_activations and recipe.activations == "float",
            recipe.reduced_range and not integers,
            recipe.pruned and (recipe.float16 or recipe.activations != "float"),
            recipe.learned and not (static and recipe.activation_bits == 8),
            recipe.searched and not (static and not recipe.mixed),
            recipe.float64 and not static,
        )
    )
