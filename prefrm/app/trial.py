"""The view "Try": a prompt and candidates, and what judges say of them."""

from prefrm.app.application import View, require_gradio
from prefrm.app.judges import Judges

__all__ = ["trial_view"]


def trial_view(judges: Judges) -> View:
    """The page on which a person gives a prompt and candidates to one judge or two."""

    def build() -> None:
        gradio = require_gradio()
        gradio.Dropdown(judges.names, label="Judge")

    return View(name="Try", build=build)
