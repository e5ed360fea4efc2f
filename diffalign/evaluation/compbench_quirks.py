"""Every place where T2I-CompBench's released code does something else than it was meant to, in one table.

`strict=True` scores as released, `strict=False` mends; the two differ here and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple


class Quirk(NamedTuple):
    """One deviation.

    Attributes:
        name: short name, as the docstrings use it.
        part: what it concerns: prompt, flat (2-D), depth (3-D), counts, attributes or complex.
        released: what the released code does.
        mended: what `strict=False` does.
    """

    name: str
    part: str
    released: str
    mended: str


QUIRKS = (
    Quirk(
        "cut_prompt", "prompt", "a prompt ends at its first underscore (it is read from the file name)", "whole prompt"
    ),
    Quirk(
        "single_tokens", "prompt", "objects are single nouns: the last of `traffic light`", "whole names, or their head"
    ),
    Quirk(
        "place_nouns", "prompt", "`left`, `top` or `side` can be an object if it is the first or last noun", "left out"
    ),
    Quirk("people", "prompt", "girl, boy, man, woman count as person only", "their own label counts too"),
    Quirk("substring_relation", "prompt", "a relation is found inside other words (`near` in `nearby`)", "whole words"),
    Quirk(
        "on_top_of", "flat", "`on top of` has no rule: position 0", "as `on the top of`; also `above`, `below`, `under`"
    ),
    Quirk("floor", "flat", "a score below one half becomes 0", "kept"),
    Quirk("near_one_axis", "flat", "near if either axis is below 150 pixels", "near if both are"),
    Quirk("first_detection", "flat", "the first detection of a label counts", "the most confident"),
    Quirk("same_object", "flat", "two equal objects may be one detection", "two detections, in either order"),
    Quirk("transposed_depth", "depth", "the depth map is read with x as rows", "x as columns"),
    Quirk("coarse_depth", "depth", "depth is stored in 8 bits", "as the model gives it"),
    Quirk("exact_half", "depth", "an overlap of exactly one half scores 0", "1"),
    Quirk(
        "contained_label", "depth", "a label that contains the word counts (`carpet` for `car`)", "equal labels only"
    ),
    Quirk("last_match", "depth", "the last match before the other object's first", "the most confident"),
    Quirk("same_object_depth", "depth", "two equal objects are one detection", "two detections, in either order"),
    Quirk("contained_duplicate", "counts", "an object inside another of its label is a duplicate", "IoU above .9 only"),
    Quirk(
        "renamed_labels", "counts", "labels that contain the word become it, for later objects too", "last word equal"
    ),
    Quirk("fixed_vocabulary", "counts", "88 nouns are known, others are not counted", "any noun after a number"),
    Quirk("small_numbers", "counts", "a, an and one to eight in lower case", "to twelve, digits and capitals"),
    Quirk("adjective_between", "counts", "the object must follow the number at once", "adjectives may stand between"),
    Quirk("shifted_numbers", "counts", "`a dogs` drops its number and shifts later ones", "kept in place"),
    Quirk("television", "counts", "`television` is searched as such (its alias is misspelt)", "as `tv`"),
    Quirk("eight_questions", "attributes", "the first eight questions only", "all"),
    Quirk("rounding", "attributes", "probabilities and product rounded to four decimals", "not rounded"),
    Quirk("place_questions", "attributes", "asks for places but four, and for pronouns", "asks for neither"),
    Quirk("two_objects", "complex", "a sentence with other than two objects scores no position", "its first pair"),
    Quirk("adjectives_removed", "complex", "CLIP reads the sentence without its adjectives", "the sentence"),
)
