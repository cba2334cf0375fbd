"""What UniGenBench's test points mean, in prefrm's words."""

from collections.abc import Mapping

__all__ = ["DEFINITIONS"]

DEFINITIONS: Mapping[str, str] = {
    "Style": "the named style of art, painting, photography or design, or that of the named artist",
    "World Knowledge": "a real person, building, work, field or expression is recognisable as itself",
    "Logical Reasoning": "the image shows what follows from the prompt, also where that is not said",
    "Text Generation": "the text is written in the image as given, nothing left out and nothing added",
    "Attribute - Quantity": "the number of items is exactly the one that is named",
    "Attribute - Expression": "a face shows the named emotion, and not merely a movement of it",
    "Attribute - Material": "a thing is of the named material, by its look and texture",
    "Attribute - Size": "size, height, length, width or thickness is as described",
    "Attribute - Shape": "a thing has the named shape",
    "Attribute - Color": "a thing has the named color",
    "Action - Hand (Character/Anthropomorphic)": "a hand does what is described, and has whole fingers",
    "Action - Full-body (Character/Anthropomorphic)": "a whole body does what is described",
    "Action - Animal": "an animal does what is described",
    "Action - Contact Interaction": "two things touch or act on each other as described",
    "Action - Non-contact Interaction": "two things act on each other without touching",
    "Action - State": "a thing is in the lasting state that a verb names",
    "Relationship - Comparison": "an attribute of two things compares as described",
    "Relationship - Composition": "a thing consists of the other things that are named",
    "Relationship - Inclusion": "a thing is inside another, or in a picture of it",
    "Relationship - Similarity": "different things are alike as described",
    "Compound - Imagination": "something that cannot be in reality is shown as described",
    "Compound - Feature Matching": "each of several things has its own features and none of another's",
    "Grammar - Negation": "what the prompt says is not there, or does not happen, is not shown",
    "Grammar - Pronoun Reference": "a pronoun is read as the thing that it stands for",
    "Grammar - Consistency": "an attribute that several things share is the same in all of them",
    "Entity Layout - Two-Dimensional Space": "things stand left, right, above or below as described",
    "Entity Layout - Three-Dimensional Space": "things stand before, behind or around as described",
}
"""Test point -> its meaning."""
