"""Versioned prompt templates: what a judge is asked, and the tokens with which it answers.

A template never changes once a judge was trained with it; a new wording is a new template with a
new id. Rendering with a chat template and tokenizing belong to `prefrm.judge.processor`.

    places.py     what a group fills in, in a text
    template.py   a template and its rendering, as data
    builtin.py    the wordings of this package, by id
    files.py      a person's own wording, or a published judge's, in a text file or a configuration
"""

from prefrm.prompts.builtin import TEMPLATES, default_template, get_template, is_builtin
from prefrm.prompts.files import FILE, parse_template, read_template
from prefrm.prompts.template import RenderedTemplate, Template

__all__ = [
    "FILE",
    "TEMPLATES",
    "RenderedTemplate",
    "Template",
    "default_template",
    "get_template",
    "is_builtin",
    "parse_template",
    "read_template",
]
